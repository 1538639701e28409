//! What one process has to tell the others and has not yet, and how it is written.

use std::collections::{HashMap, HashSet};

use gainsay_commitment::PartyId;
use gainsay_protocol::ServiceTime;
use uuid::Uuid;

use super::super::Topic;

/// Topics in one message: some 40 KiB.
const TOPICS_MAX: usize = 512;
/// Bytes of a message that are looked at.
const MESSAGE_MAX: usize = 64 << 10;
/// Parties whose presence waits to be told; more are told the next time that they are heard of.
const SEEN_MAX: usize = 8_192;
/// Stands for every topic.
const EVERYBODY: &str = "*";

/// Wake-ups and presence to be sent. Several of one kind are one, so its size is bounded.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    topics: HashSet<Topic>,
    everybody: bool,
    seen: HashMap<PartyId, ServiceTime>,
}

impl Outbox {
    pub(super) fn publish(&mut self, topic: Topic) {
        if self.topics.len() < TOPICS_MAX {
            self.topics.insert(topic);
        } else if !self.topics.contains(&topic) {
            self.everybody = true;
        }
    }

    /// Has everybody woken: for what may have been missed.
    pub(super) fn publish_all(&mut self) {
        self.everybody = true;
    }

    pub(super) fn mark_seen(&mut self, party: PartyId, now: ServiceTime) {
        if self.seen.len() < SEEN_MAX || self.seen.contains_key(&party) {
            let time = self.seen.entry(party).or_insert(now);
            *time = (*time).max(now);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && !self.everybody && self.seen.is_empty()
    }

    pub(super) fn seen(&self) -> &HashMap<PartyId, ServiceTime> {
        &self.seen
    }

    /// The wake-ups as a message: the sender, then a topic a line. One without topics is a sign of life.
    pub(super) fn message(&self, sender: Uuid) -> String {
        let mut message = sender.simple().to_string();
        let mut add = |topic: &str| {
            message.push('\n');
            message.push_str(topic);
        };
        if self.everybody {
            add(EVERYBODY);
        } else {
            self.topics.iter().for_each(|topic| add(&topic.to_string()));
        }
        message
    }
}

/// Whom a message wakes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nobody: it is this process's own, a sign of life, or none of ours.
    Nothing,
    /// Those who wait for these.
    Topics(Vec<Topic>),
    /// Everybody.
    Everybody,
}

/// Reads a message. Anything can be published under our channel's name, so what does not parse is skipped.
pub(super) fn read(message: &[u8], this: Uuid) -> Heard {
    let text = message.get(..message.len().min(MESSAGE_MAX)).and_then(|text| std::str::from_utf8(text).ok());
    let Some((sender, topics)) = text.and_then(|text| text.split_once('\n')) else { return Heard::Nothing };
    if sender == this.simple().to_string() {
        return Heard::Nothing;
    }
    if topics == EVERYBODY {
        return Heard::Everybody;
    }
    let topics: Vec<Topic> = topics.lines().take(TOPICS_MAX).filter_map(|topic| topic.parse().ok()).collect();
    if topics.is_empty() { Heard::Nothing } else { Heard::Topics(topics) }
}

#[cfg(test)]
mod tests {
    use gainsay_protocol::JobId;

    use super::*;

    #[test]
    fn what_is_written_is_read_by_others_alone() {
        let (this, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let topics =
            [Topic::Queue, Topic::Job(JobId([7; 16])), Topic::Dispute([9; 32].into()), Topic::Events];
        let mut outbox = Outbox::default();
        assert_eq!(read(outbox.message(this).as_bytes(), other), Heard::Nothing);
        topics.iter().chain(&topics).for_each(|topic| outbox.publish(*topic));
        let Heard::Topics(heard) = read(outbox.message(this).as_bytes(), other) else {
            panic!("others hear the topics");
        };
        assert_eq!(heard.len(), topics.len());
        assert!(topics.iter().all(|topic| heard.contains(topic)), "{heard:?}");
        assert_eq!(read(outbox.message(this).as_bytes(), this), Heard::Nothing);
        outbox.publish_all();
        assert_eq!(read(outbox.message(this).as_bytes(), other), Heard::Everybody);
    }

    /// More topics than a message holds wake more waiters, not fewer.
    #[test]
    fn an_overfull_outbox_wakes_everybody() {
        let mut outbox = Outbox::default();
        for n in 0..=TOPICS_MAX as u128 {
            outbox.publish(Topic::Job(JobId(n.to_be_bytes())));
        }
        assert_eq!(read(outbox.message(Uuid::from_u128(1)).as_bytes(), Uuid::nil()), Heard::Everybody);
    }

    #[test]
    fn strangers_messages_are_skipped() {
        let messages: [&[u8]; 5] = [b"", b"x", b"\xff\n*", b"x\nnonsense\njob:1", &[b'\n'; MESSAGE_MAX + 1]];
        for message in messages {
            assert_eq!(read(message, Uuid::nil()), Heard::Nothing, "{message:?}");
        }
        assert_eq!(read(b"x\nnonsense\nqueue", Uuid::nil()), Heard::Topics(vec![Topic::Queue]));
    }
}
