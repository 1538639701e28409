//! The floating-point control register of the calling thread.

/// Whether this thread rounds to nearest even and keeps subnormals: the control register is at its default
/// (MXCSR 0x1F80 but for the sticky exception flags, FPCR 0). Where the register is unknown, a subnormal and a tie
/// are tried.
pub fn float_environment_is_default() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        /// Exceptions that have happened: they say nothing about those to come.
        const STICKY_FLAGS: u32 = 0x3f;
        mxcsr() & !STICKY_FLAGS == 0x1f80
    }
    #[cfg(target_arch = "aarch64")]
    {
        fpcr() == 0
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        use std::hint::black_box;
        let tiny = black_box(f32::from_bits(3)) * black_box(1.0);
        let tie = black_box(1.0f32) + black_box(f32::EPSILON / 2.0);
        tiny.to_bits() == 3 && tie == 1.0
    }
}

#[cfg(target_arch = "x86_64")]
fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: `stmxcsr` writes four bytes to the address given, which is that of a local u32, and reads nothing but
    // the control register. SSE is part of x86-64.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
    }
    value
}

#[cfg(target_arch = "aarch64")]
fn fpcr() -> u64 {
    let value: u64;
    // SAFETY: reads a register that user code may read.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_thread_has_the_default() {
        assert!(float_environment_is_default());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn flushing_and_other_rounding_are_noticed_and_exceptions_are_not() {
        let with = |value: u32| {
            std::thread::spawn(move || {
                // SAFETY: loads the control register from a local; the thread ends with it.
                unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
                float_environment_is_default()
            })
            .join()
            .unwrap()
        };
        assert!(!with(0x9f80), "flush to zero");
        assert!(!with(0x1fc0), "subnormals are zeros");
        assert!(!with(0x3f80), "round down");
        assert!(with(0x1fbf), "only sticky flags");
    }
}
