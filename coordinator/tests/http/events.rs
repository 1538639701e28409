//! The event stream: nothing lost, nothing twice, whoever comes back with its last id.

use std::time::Duration;

use gainsay_api::events::{Event, EventCursor, EventKind};
use gainsay_testkit::TestCoordinator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::send;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(30);

/// The next events of a stream that starts behind `after`, until `enough` says so.
async fn read(
    world: &World,
    after: Option<EventCursor>,
    mut enough: impl FnMut(&Event) -> bool,
) -> Vec<Event> {
    let mut reader = world.client.events(after);
    let mut events = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("events come");
        let event = event.expect("the stream can be read");
        let last = enough(&event);
        events.push(event);
        if last {
            return events;
        }
    }
}

fn is_final(event: &Event) -> bool {
    matches!(event.kind, EventKind::ClaimFinalized { .. })
}

async fn one_job(world: &World) {
    world.submit("one two").await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    world.post(&world.run(&lease), &lease, &world.owner.worker).await;
    world.close_windows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_life_is_told_with_names_and_amounts() {
    let world = World::new().await;
    one_job(&world).await;
    let events = read(&world, Some(EventCursor::start()), is_final).await;
    let mut told = events.iter().filter_map(|event| match &event.kind {
        EventKind::JobSubmitted { submitter_name, model_name, sequences, tokens, .. } => {
            Some(format!("{submitter_name} submits {sequences}/{tokens} to {model_name}"))
        }
        EventKind::JobAssigned { worker, attempt, .. } => {
            Some(format!("{} has it, attempt {attempt}", worker.name))
        }
        EventKind::JobClaimed { worker, layers, output_bytes, .. } => {
            Some(format!("{} claims {layers} layers, {output_bytes} bytes", worker.name))
        }
        EventKind::ClaimFinalized { worker, .. } => Some(format!("{} is paid", worker.name)),
        EventKind::ModelReady { name, .. } => Some(format!("{name} is ready")),
        _ => None,
    });
    let (layers, width) = (world.model.toy.model.layer_count(), world.model.toy.model.answer_width() * 4);
    for expected in [
        "toy is ready".to_owned(),
        "submitter submits 1/2 to toy".to_owned(),
        "owner's worker has it, attempt 1".to_owned(),
        format!("owner's worker claims {layers} layers, {width} bytes"),
        "owner's worker is paid".to_owned(),
    ] {
        assert_eq!(told.next(), Some(expected));
    }
    world.test.stop().await;
}

/// A reader cut off after any event and coming back must see exactly the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let world = World::new().await;
    one_job(&world).await;
    let all = read(&world, Some(EventCursor::start()), is_final).await;
    for cut in 0..all.len() - 1 {
        let rest = read(&world, Some(all[cut].id.clone()), is_final).await;
        assert_eq!(rest, all[cut + 1..], "cut after event {cut}");
    }
    world.test.stop().await;
}

/// Without a cursor only news come, and they come at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_a_cursor_hears_what_happens_from_now_on() {
    let world = World::new().await;
    let first = world.submit("one").await.id;
    // An event is readable once no older transaction runs; only then is it old news for certain.
    let is_first = |event: &Event| matches!(event.kind, EventKind::JobSubmitted { job, .. } if job == first);
    read(&world, Some(EventCursor::start()), is_first).await;
    let address = world.test.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the service listens");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    let mut submitted = None;
    loop {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("something comes");
        let read = read.expect("the stream is open");
        assert_ne!(read, 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if submitted.is_none() && seen.contains(": listening") {
            submitted = Some(world.submit("two").await.id);
        }
        if submitted.is_some_and(|id| seen.contains(&id.to_string())) {
            break;
        }
    }
    assert_eq!(seen.matches("event: job_submitted").count(), 1, "{seen}");
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    drop(stream);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_shows_that_it_lives() {
    let builder = TestCoordinator::builder().http(|http| http.event_heartbeat = Duration::from_millis(50));
    let test = builder.start().await;
    let address = test.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the service listens");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while seen.matches("\r\n:\n\n").count() < 2 {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("a heartbeat comes");
        let read = read.expect("the stream is open");
        assert_ne!(read, 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    drop(stream);
    test.stop().await;
}

/// Streams without bound would let anyone use up the service's memory and sockets.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_streams_is_bounded() {
    let builder = TestCoordinator::builder().http(|http| http.event_streams = 1);
    let test = builder.start().await;
    let address = test.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the service listens");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    let mut first = [0; 64];
    stream.read_exact(&mut first).await.expect("the first stream opens");
    send(&test, "GET", "/v1/events", &[], &[]).await.refused(429, gainsay_api::ErrorCode::Overloaded);
    drop(stream);
    // Its place is free again once the service has noticed.
    gainsay_testkit::until("a free place", async || {
        let mut stream = TcpStream::connect(&address).await.ok()?;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.ok()?;
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.ok()?;
        (&first == b"HTTP/1.1 200 OK").then_some(())
    })
    .await;
    test.stop().await;
}
