//! The driver without a GPU, called as programs call CUDA's: by name, in a library that is found by name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cuda;

use std::process::Command;

use cuda::{
    Array, CAPTURE_UNSUPPORTED, Cuda, ILLEGAL_ADDRESS, INVALID_CONTEXT, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS,
};
use gainsay_cuda_launch::{At, Launch, Then, each::each};

const COUNT: usize = 1000;

fn sum(x: &Array, y: &Array, out: &Array) -> Launch {
    each(Then::Add, At::new(x.at), At::new(y.at), At::new(out.at), COUNT as u64)
}

#[test]
fn copies_and_kernels_happen_in_the_order_of_their_stream() {
    let cuda = Cuda::open();
    let stream = cuda.stream();
    let x: Vec<f32> = (0..COUNT).map(|i| i as f32).collect();
    let (a, b) = (cuda.array(4 * COUNT), cuda.array(4 * COUNT));
    assert_eq!(cuda.to_device(&a, &x, stream), SUCCESS);
    assert_eq!(cuda.launch(&sum(&a, &a, &b), stream), SUCCESS);
    assert_eq!(cuda.launch(&sum(&b, &a, &a), stream), SUCCESS);
    let mut out = vec![0.0; COUNT];
    assert_eq!(cuda.to_host(&mut out, &a, stream), SUCCESS);
    let expected: Vec<f32> = x.iter().map(|x| 3.0 * x).collect();
    assert_eq!(out, expected);
}

/// A program that reads before it has waited, or writes over what is still to be copied, has to fail here as it may on a GPU.
#[test]
fn nothing_has_happened_before_it_is_waited_for() {
    let cuda = Cuda::open();
    let stream = cuda.stream();
    let (from, to) = (cuda.pinned(COUNT), cuda.pinned(COUNT));
    from.fill(1.0);
    to.fill(7.0);
    let array = cuda.array(4 * COUNT);
    assert_eq!(cuda.to_device(&array, from, stream), SUCCESS);
    assert_eq!(cuda.to_host(to, &array, stream), SUCCESS);
    from.fill(2.0);
    assert!(to.iter().all(|&x| x == 7.0), "a copy to pinned memory came before the host waited");
    cuda.wait(stream);
    assert!(to.iter().all(|&x| x == 2.0), "a copy from pinned memory read it at once");
}

/// What is captured happens when it is launched, as often as it is, with what its arrays hold then.
#[test]
fn a_graph_does_again_what_was_captured() {
    let cuda = Cuda::open();
    let (captured, stream) = (cuda.stream(), cuda.stream());
    let (a, b) = (cuda.array(4 * COUNT), cuda.array(4 * COUNT));
    cuda.capture(captured);
    let between = cuda.array_on(4 * COUNT, captured);
    assert_eq!(cuda.to_device(&a, &vec![9.0; COUNT], captured), CAPTURE_UNSUPPORTED);
    assert_eq!(cuda.launch(&sum(&a, &a, &between), captured), SUCCESS);
    assert_eq!(cuda.launch(&sum(&between, &a, &b), captured), SUCCESS);
    cuda.free(&between, captured);
    let graph = cuda.captured(captured).unwrap();
    for x in [1.0, 2.0] {
        assert_eq!(cuda.to_device(&a, &vec![x; COUNT], stream), SUCCESS);
        cuda.launch_graph(graph, stream);
        let mut out = vec![0.0; COUNT];
        assert_eq!(cuda.to_host(&mut out, &b, stream), SUCCESS);
        assert_eq!(out, vec![3.0 * x; COUNT]);
    }
}

/// A driver would launch it once.
#[test]
fn a_graph_that_keeps_what_it_has_allocated_is_refused() {
    let cuda = Cuda::open();
    let stream = cuda.stream();
    cuda.capture(stream);
    cuda.array_on(64, stream);
    assert_eq!(cuda.captured(stream).err(), Some(INVALID_VALUE));
}

#[test]
fn a_stream_waits_for_what_an_event_marks_in_another() {
    let cuda = Cuda::open();
    let (first, second) = (cuda.stream(), cuda.stream());
    let array = cuda.array(4 * COUNT);
    assert_eq!(cuda.to_device(&array, &vec![1.0; COUNT], first), SUCCESS);
    let event = cuda.event(first);
    assert_eq!(cuda.to_device(&array, &vec![2.0; COUNT], first), SUCCESS);
    let mut out = vec![0.0; COUNT];
    cuda.wait_for(second, event);
    assert_eq!(cuda.to_host(&mut out, &array, second), SUCCESS);
    assert_eq!(out, vec![1.0; COUNT], "the second copy was not marked");
}

#[test]
fn what_reaches_beyond_an_array_is_refused() {
    let cuda = Cuda::open();
    let stream = cuda.stream();
    let (short, long) = (cuda.array(4 * COUNT - 4), cuda.array(4 * COUNT));
    let mut host = vec![0.0; COUNT];
    assert_eq!(cuda.to_device(&short, &host, stream), INVALID_VALUE);
    assert_eq!(cuda.to_host(&mut host, &short, stream), INVALID_VALUE);
    let nowhere = Array { at: 4096 };
    assert_eq!(cuda.launch(&sum(&long, &long, &nowhere), stream), ILLEGAL_ADDRESS);
    let freed = cuda.array(4 * COUNT);
    cuda.free(&freed, stream);
    assert_eq!(cuda.launch(&sum(&long, &long, &freed), stream), ILLEGAL_ADDRESS);
    let mut greedy = sum(&long, &long, &long);
    greedy.shape = greedy.shape.with_shared(100 << 10);
    assert_eq!(cuda.launch(&greedy, stream), INVALID_VALUE, "nobody asked for so much shared memory");
    assert_eq!(cuda.allow_shared("each", 100 << 10), SUCCESS);
    assert_eq!(cuda.launch(&greedy, stream), SUCCESS);
}

#[test]
fn threads_without_a_context_launch_nothing() {
    let cuda = Cuda::open();
    let stream = cuda.stream();
    let (array, function) = (cuda.array(4 * COUNT), cuda.function("each"));
    let launch = sum(&array, &array, &array);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(cuda.launch_function(function, &launch, stream), INVALID_CONTEXT));
    });
}

/// In a process of its own, which it ends.
#[test]
fn a_kernel_that_writes_beside_its_array_ends_the_process() {
    const VARIABLE: &str = "WRITES_BESIDE";
    if std::env::var_os(VARIABLE).is_some() {
        let cuda = Cuda::open();
        let stream = cuda.stream();
        let (long, short) = (cuda.array(4 * COUNT), cuda.array(4 * COUNT - 4));
        assert_eq!(cuda.to_device(&long, &vec![1.0; COUNT], stream), SUCCESS);
        cuda.launch(&sum(&long, &long, &short), stream);
        cuda.wait(stream);
        return;
    }
    let test = "a_kernel_that_writes_beside_its_array_ends_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([test, "--exact", "--nocapture"]).env(VARIABLE, "1").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && message.contains("written behind an array (kernel each"),
        "{message}"
    );
}

/// In a process of its own, for the limit holds for all threads.
#[test]
fn a_full_device_says_so_and_goes_on() {
    const VARIABLE: &str = "FULL_DEVICE";
    if std::env::var_os(VARIABLE).is_some() {
        let driver = gainsay_cuda_emulator::install().unwrap();
        let cuda = Cuda::open();
        let stream = cuda.stream();
        driver.limit_memory(10_000);
        let first = cuda.array(6_000);
        assert_eq!(driver.usage().bytes, 6_000);
        assert_eq!(cuda.try_array(6_000).unwrap_err(), OUT_OF_MEMORY);
        cuda.free(&first, stream);
        assert!(cuda.try_array(6_000).is_ok());
        let before = driver.usage();
        cuda.wait(stream);
        assert_eq!(driver.usage().waits, before.waits + 1);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let args = ["a_full_device_says_so_and_goes_on", "--exact", "--nocapture"];
    let output = child.args(args).env(VARIABLE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
