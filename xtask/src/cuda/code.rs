//! Reading what nvcc has made of the kernels: whether it rounds where they round, flushes nothing, and fits the registers.
//!
//! PTX is the place to look for contraction: an `add.f32` without `.rn` may be fused with a `mul.f32` by the assembler, one
//! with `.rn` never is. In machine code the correctly rounded division and root are sequences of the compiler's own, around
//! an approximation and with flushed operands where it has made sure of their range; so there flushing is looked for in
//! kernels that neither divide nor take roots.

use std::collections::BTreeMap;
use std::fmt;

/// What may happen to floats in PTX, besides being moved, compared and selected.
const ROUNDED: [&str; 8] = [
    "add.rn.f32",
    "sub.rn.f32",
    "mul.rn.f32",
    "fma.rn.f32",
    "div.rn.f32",
    "sqrt.rn.f32",
    "cvt.rn.f32.s32",
    "cvt.rni.s32.f32",
];
/// Exact whatever the rounding.
const EXACT: [&str; 3] = ["neg.f32", "abs.f32", "cvt.f32.f16"];
/// What moves, compares and selects.
const MOVES: [&str; 6] = ["mov.", "ld.", "st.", "setp.", "selp.", "shfl."];
/// Types that are nothing but bits where they are only moved.
const FLOATS: [&str; 4] = [".f32", ".f64", ".f16", ".bf16"];
/// Bytes of registers that a kernel may keep in memory: more is a kernel that wants another tile.
const MOST_SPILLED: u32 = 128;

/// What a kernel needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) kernel: String,
    pub(super) registers: u32,
    pub(super) spilled: u32,
    pub(super) shared: u32,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, registers, spilled, shared } = self;
        write!(f, "{kernel:<30}  {registers:>9}  {spilled:>7}  {shared:>6}")
    }
}

/// What `ptxas -v` reports of each kernel.
pub(super) fn usage(report: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Usage { kernel, ..Usage::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        last.registers = number_before(line, " registers").unwrap_or(last.registers);
        last.spilled = number_before(line, " bytes spill stores").unwrap_or(last.spilled);
        last.shared = number_before(line, " bytes smem").unwrap_or(last.shared);
    }
    all
}

fn number_before(line: &str, what: &str) -> Option<u32> {
    let (before, _) = line.split_once(what)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What is wrong with a file's kernels, a line each.
pub(super) fn faults(ptx: &str, sass: &str, usage: &[Usage]) -> Vec<String> {
    let kernels = instructions(ptx, |line| Some(line.split_once(".entry ")?.1.split('(').next()?.trim()));
    let mut faults: Vec<String> = Vec::new();
    for (kernel, found) in &kernels {
        let strange = found.iter().filter(|instruction| !may_be_in_ptx(instruction));
        faults.extend(strange.map(|instruction| format!("{kernel}: {instruction} in PTX")));
    }
    let machine = instructions(sass, |line| line.trim().strip_prefix("Function : "));
    for (kernel, found) in &machine {
        let divides = kernels.get(kernel).is_some_and(|ptx| {
            ptx.iter()
                .any(|instruction| instruction.starts_with("div.rn") || instruction.starts_with("sqrt.rn"))
        });
        let flushes = |instruction: &&String| {
            let arithmetic = ["FADD", "FMUL", "FFMA"].iter().any(|name| instruction.starts_with(name));
            arithmetic && instruction.contains(".FTZ")
        };
        let strange = found.iter().filter(|instruction| !divides && flushes(instruction));
        faults.extend(strange.map(|instruction| format!("{kernel}: {instruction} in machine code")));
    }
    if kernels.len() != usage.len() || kernels.keys().ne(machine.keys()) {
        faults.push(format!(
            "{} kernels in PTX, {} in machine code, {} in the compiler's report",
            kernels.len(),
            machine.len(),
            usage.len()
        ));
    }
    let spills = usage.iter().filter(|usage| usage.spilled > MOST_SPILLED);
    faults.extend(
        spills.map(|usage| format!("{}: {} bytes of registers spilled", usage.kernel, usage.spilled)),
    );
    faults
}

fn may_be_in_ptx(instruction: &str) -> bool {
    let of_floats = FLOATS.iter().any(|kind| instruction.contains(kind));
    if !of_floats && !instruction.contains("approx") && !instruction.contains("ftz") {
        return true;
    }
    let moves = MOVES.iter().any(|prefix| instruction.starts_with(prefix)) && !instruction.contains("ftz");
    moves || ROUNDED.contains(&instruction) || EXACT.contains(&instruction)
}

/// The instructions of each kernel, without operands; `begins` gives the name of the kernel that a line begins.
fn instructions<'a>(
    text: &'a str,
    begins: impl Fn(&'a str) -> Option<&'a str>,
) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current: Option<&str> = None;
    for line in text.lines() {
        if let Some(kernel) = begins(line) {
            current = Some(kernel);
            all.entry(kernel.to_owned()).or_default();
        } else if let Some(found) = current.and_then(|kernel| all.get_mut(kernel)) {
            found.extend(instruction(line).map(str::to_owned));
        }
    }
    all
}

/// The instruction of a line of either kind of code: the first word that is neither an address, a predicate nor a label.
fn instruction(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with("//") || line.starts_with('.') {
        return None;
    }
    let line = line
        .strip_prefix("/*")
        .map_or(line, |rest| rest.split_once("*/").map_or("", |(_, rest)| rest))
        .trim();
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with('@') || word.starts_with('{'));
    let word = words.next()?.trim_end_matches([';', ',']);
    word.starts_with(|c: char| c.is_ascii_alphabetic()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.visible .entry honest(
	.param .u64 honest_param_0
)
{
	ld.global.f32 	%f1, [%rd1];
	@%p1 bra 	$L__BB0_2;
	mul.rn.f32 	%f2, %f1, %f1;
	fma.rn.f32 	%f3, %f1, %f2, 0f3F800000;
	st.global.f32 	[%rd2], %f3;
	ret;
}
";
    const SASS: &str = "
		Function : honest
	.headerflags	@\"EF_CUDA_SM90\"
        /*0000*/                   LDC R1, c[0x0][0x28] ;          /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 FFMA R5, R2, R3, 1 ;            /* 0x00000a00ff017b82 */
";

    fn report() -> Vec<Usage> {
        usage(
            "ptxas info    : Compiling entry function 'honest' for 'sm_90'
ptxas info    : Function properties for honest
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 512 bytes smem, 560 bytes cmem[0]",
        )
    }

    #[test]
    fn the_report_is_read() {
        let expected = Usage { kernel: "honest".to_owned(), registers: 24, spilled: 0, shared: 512 };
        assert_eq!(report(), [expected]);
    }

    #[test]
    fn code_that_rounds_as_written_passes() {
        assert_eq!(faults(PTX, SASS, &report()), [""; 0]);
    }

    #[test]
    fn what_could_be_contracted_or_is_approximate_is_told() {
        for bad in
            ["mul.f32", "add.ftz.f32", "ex2.approx.f32", "rcp.approx.ftz.f32", "fma.rz.f32", "add.rn.f64"]
        {
            let ptx = PTX.replace("mul.rn.f32", bad);
            assert_eq!(faults(&ptx, SASS, &report()), [format!("honest: {bad} in PTX")]);
        }
    }

    #[test]
    fn flushing_is_told_but_for_divisions() {
        let sass = SASS.replace("FFMA", "FFMA.FTZ");
        assert_eq!(faults(PTX, &sass, &report()), ["honest: FFMA.FTZ in machine code"]);
        assert_eq!(faults(&PTX.replace("mul.rn", "div.rn"), &sass, &report()), [""; 0]);
    }

    #[test]
    fn a_kernel_that_is_missing_or_spills_is_told() {
        assert_eq!(faults(PTX, "", &report()).len(), 1);
        let mut usage = report();
        usage[0].spilled = MOST_SPILLED + 1;
        assert_eq!(faults(PTX, SASS, &usage).len(), 1);
    }
}
