//! What outlives a connection: messages that the server has not confirmed, subscriptions, and ids.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};

use super::{
    client::{Command, Granted, Incoming, Receipt},
    filter,
    packet::{self, Packet, Publish, Qos},
};

/// Messages that may wait for the server's confirmation. More wait outside.
const MAX_OUTGOING: usize = 1024;
/// Messages that may wait for a subscription to come. More are left to the next connection.
const MAX_UNCLAIMED: usize = 1024;
/// In place of a quality: the server refuses a subscription.
const REFUSED: u8 = 0x80;

#[derive(Default)]
pub(super) struct Session {
    last_id: u16,
    /// Counts connections, so that a receipt of an old one is told from those of this one.
    connection: u64,
    /// By id. Ordered again when they are sent again.
    outgoing: HashMap<u16, Outgoing>,
    sent: u64,
    subscriptions: BTreeMap<String, Subscription>,
    /// Messages that must arrive once and that the server has not released, by id; true once they are handled.
    unreleased: HashMap<u16, bool>,
    /// Quality of messages in hand, by id.
    in_hand: HashMap<u16, Qos>,
    unclaimed: VecDeque<Incoming>,
}

struct Outgoing {
    order: u64,
    message: Publish,
    /// Whether the server has it, and only its release is to be confirmed.
    is_release: bool,
    done: oneshot::Sender<()>,
}

struct Subscription {
    qos: Qos,
    feed: mpsc::Sender<Incoming>,
    /// The request's id and who waits for the answer.
    asked: Option<(u16, oneshot::Sender<Granted>)>,
}

/// A message and where it goes.
pub(super) type Routed = (mpsc::Sender<Incoming>, Incoming);

impl Session {
    /// Begins with a new connection: what the server may have missed is sent again. `resumed` says whether it remembers
    /// the session.
    pub(super) fn resume(&mut self, resumed: bool, out: &mut BytesMut) {
        self.connection += 1;
        self.in_hand.clear();
        if resumed {
            // The server sends them again.
            self.unclaimed.clear();
        }
        for message in &mut self.unclaimed {
            message.receipt = None;
        }
        self.unreleased.retain(|_, handled| resumed && *handled);
        let filters: Vec<_> = self.subscriptions.keys().cloned().collect();
        for filter in filters {
            self.request(&filter, out);
        }
        let mut ids: Vec<_> = self.outgoing.iter().map(|(id, outgoing)| (outgoing.order, *id)).collect();
        ids.sort_unstable();
        for (_, id) in ids {
            let Some(outgoing) = self.outgoing.get_mut(&id) else { continue };
            if !outgoing.is_release {
                outgoing.message.again = resumed;
                outgoing.message.encode(out);
            } else if resumed {
                packet::answer(out, packet::PUBREL, id);
            } else {
                // The server had it, and has forgotten that we were to release it.
                self.settle(id);
            }
        }
    }

    /// Whether another command can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < MAX_OUTGOING
    }

    /// Does what is asked; gives messages that have waited for that.
    pub(super) fn command(&mut self, command: Command, out: &mut BytesMut) -> Vec<Routed> {
        match command {
            Command::Publish { message, done } => self.publish(message, done, out),
            Command::Subscribe { filter, qos, feed, done } => {
                let subscription = Subscription { qos, feed, asked: Some((0, done)) };
                self.subscriptions.insert(filter.clone(), subscription);
                self.request(&filter, out);
                return self.claim();
            }
            Command::Detach { filter, rest, unsubscribe } => {
                // Another subscription may have taken the place of this one.
                if self.subscriptions.get(&filter).is_some_and(|subscription| subscription.feed.is_closed()) {
                    self.subscriptions.remove(&filter);
                    if unsubscribe {
                        let id = self.next_id();
                        packet::unsubscribe(out, id, &filter);
                    }
                }
                self.unclaimed.extend(rest);
                return self.claim();
            }
        }
        Vec::new()
    }

    /// Takes in what the server sent; gives a message that is for a subscription.
    pub(super) fn packet(&mut self, packet: Packet, out: &mut BytesMut) -> Option<Routed> {
        match packet {
            Packet::Publish(message) => return self.receive(message, out),
            Packet::PubAck(id) | Packet::PubComp(id) => self.settle(id),
            Packet::PubRec(id) => {
                if let Some(outgoing) = self.outgoing.get_mut(&id) {
                    outgoing.is_release = true;
                }
                packet::answer(out, packet::PUBREL, id);
            }
            Packet::PubRel(id) => {
                self.unreleased.remove(&id);
                packet::answer(out, packet::PUBCOMP, id);
            }
            Packet::SubAck { id, code } => self.granted(id, code != REFUSED),
            Packet::ConnAck { .. } | Packet::UnsubAck(_) | Packet::PingResp => {}
        }
        None
    }

    /// Tells the server that a message is handled.
    pub(super) fn acknowledge(&mut self, receipt: Receipt, out: &mut BytesMut) {
        if receipt.connection != self.connection {
            return;
        }
        match self.in_hand.remove(&receipt.id) {
            Some(Qos::AtLeastOnce) => packet::answer(out, packet::PUBACK, receipt.id),
            Some(Qos::ExactlyOnce) => {
                self.unreleased.insert(receipt.id, true);
                packet::answer(out, packet::PUBREC, receipt.id);
            }
            Some(Qos::AtMostOnce) | None => {}
        }
    }

    /// Keeps a message for a subscription that may come.
    pub(super) fn keep(&mut self, message: Incoming) {
        if self.unclaimed.len() < MAX_UNCLAIMED {
            self.unclaimed.push_back(message);
        } else {
            tracing::debug!(topic = message.topic, "mqtt message for no subscription is left to the next connection");
        }
    }

    fn publish(&mut self, mut message: Publish, done: oneshot::Sender<()>, out: &mut BytesMut) {
        if message.qos == Qos::AtMostOnce {
            message.encode(out);
            // Whoever asked may be gone.
            let _ = done.send(());
            return;
        }
        message.id = self.next_id();
        message.encode(out);
        self.sent += 1;
        let outgoing = Outgoing { order: self.sent, is_release: false, done, message };
        self.outgoing.insert(outgoing.message.id, outgoing);
    }

    fn settle(&mut self, id: u16) {
        if let Some(outgoing) = self.outgoing.remove(&id) {
            let _ = outgoing.done.send(());
        }
    }

    fn receive(&mut self, message: Publish, out: &mut BytesMut) -> Option<Routed> {
        let Publish { topic, payload, qos, retain, id, .. } = message;
        if qos == Qos::ExactlyOnce {
            match self.unreleased.get(&id) {
                // The server missed the answer.
                Some(true) => {
                    packet::answer(out, packet::PUBREC, id);
                    return None;
                }
                Some(false) => return None,
                None => self.unreleased.insert(id, false),
            };
        }
        let receipt = (qos != Qos::AtMostOnce).then(|| {
            self.in_hand.insert(id, qos);
            Receipt { id, connection: self.connection }
        });
        let message = Incoming { topic, payload, retained: retain, receipt };
        match self.feed(&message.topic) {
            Some(feed) => Some((feed, message)),
            None => {
                self.keep(message);
                None
            }
        }
    }

    /// The subscription that names the topic, or else the first that means it.
    fn feed(&self, topic: &str) -> Option<mpsc::Sender<Incoming>> {
        let exact = self.subscriptions.get(topic);
        let any =
            || self.subscriptions.iter().find(|(filter, _)| filter::matches(filter, topic)).map(|(_, found)| found);
        exact.or_else(any).map(|subscription| subscription.feed.clone())
    }

    fn claim(&mut self) -> Vec<Routed> {
        let mut claimed = Vec::new();
        for message in std::mem::take(&mut self.unclaimed) {
            match self.feed(&message.topic) {
                Some(feed) => claimed.push((feed, message)),
                None => self.unclaimed.push_back(message),
            }
        }
        claimed
    }

    fn request(&mut self, filter: &str, out: &mut BytesMut) {
        let id = self.next_id();
        if let Some(subscription) = self.subscriptions.get_mut(filter) {
            if let Some((asked, _)) = &mut subscription.asked {
                *asked = id;
            }
            packet::subscribe(out, id, filter, subscription.qos);
        }
    }

    fn granted(&mut self, id: u16, granted: Granted) {
        let asked = |subscription: &Subscription| subscription.asked.as_ref().is_some_and(|(asked, _)| *asked == id);
        let Some(filter) = self.subscriptions.iter().find(|(_, found)| asked(found)).map(|(filter, _)| filter.clone())
        else {
            return;
        };
        let subscription = if granted { self.subscriptions.get_mut(&filter) } else { None };
        let asked = match subscription {
            Some(subscription) => subscription.asked.take(),
            None => self.subscriptions.remove(&filter).and_then(|subscription| subscription.asked),
        };
        if let Some((_, done)) = asked {
            let _ = done.send(granted);
        }
    }

    /// An id that nothing of ours has; there is always one, since far fewer can be in use.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.outgoing.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// What a session has written since the last time.
    fn written(out: &mut BytesMut) -> Vec<u8> {
        out.split().to_vec()
    }

    fn publish(session: &mut Session, payload: &'static str, out: &mut BytesMut) -> oneshot::Receiver<()> {
        let (done, outcome) = oneshot::channel();
        let message = arriving(payload, Qos::AtLeastOnce, 0);
        session.command(Command::Publish { message, done }, out);
        outcome
    }

    fn arriving(payload: &'static str, qos: Qos, id: u16) -> Publish {
        let payload = Bytes::from_static(payload.as_bytes());
        Publish { topic: "t".to_owned(), payload, qos, retain: false, again: false, id }
    }

    fn subscribe(session: &mut Session, out: &mut BytesMut) -> (mpsc::Receiver<Incoming>, Vec<Routed>) {
        let (feed, messages) = mpsc::channel(8);
        let (done, _) = oneshot::channel();
        let command = Command::Subscribe { filter: "t".to_owned(), qos: Qos::AtLeastOnce, feed, done };
        (messages, session.command(command, out))
    }

    #[test]
    fn what_was_not_confirmed_is_sent_again_in_its_order_and_says_so() {
        let (mut session, mut out) = (Session::default(), BytesMut::new());
        session.resume(false, &mut out);
        let mut outcomes: Vec<_> =
            ["1", "2", "3"].into_iter().map(|text| publish(&mut session, text, &mut out)).collect();
        session.packet(Packet::PubAck(2), &mut out);
        assert!(outcomes.remove(1).try_recv().is_ok(), "the second is confirmed");
        written(&mut out);

        session.resume(true, &mut out);
        assert_eq!(written(&mut out), b"\x3a\x06\0\x01t\0\x011\x3a\x06\0\x01t\0\x033");
        session.resume(false, &mut out);
        assert_eq!(
            written(&mut out),
            b"\x32\x06\0\x01t\0\x011\x32\x06\0\x01t\0\x033",
            "it has forgotten the first time"
        );
        session.packet(Packet::PubAck(1), &mut out);
        session.packet(Packet::PubAck(3), &mut out);
        assert!(outcomes.iter_mut().all(|outcome| outcome.try_recv().is_ok()));
    }

    #[test]
    fn a_receipt_counts_for_the_connection_over_which_the_message_came() {
        let (mut session, mut out) = (Session::default(), BytesMut::new());
        session.resume(false, &mut out);
        let _feed = subscribe(&mut session, &mut out);
        let take = |session: &mut Session, out: &mut BytesMut| {
            let packet = Packet::Publish(arriving("x", Qos::AtLeastOnce, 9));
            session.packet(packet, out).and_then(|(_, message)| message.receipt).expect("it is to be confirmed")
        };
        let old = take(&mut session, &mut out);
        session.resume(true, &mut out);
        let new = take(&mut session, &mut out);
        written(&mut out);
        session.acknowledge(old, &mut out);
        assert_eq!(written(&mut out), b"");
        session.acknowledge(new, &mut out);
        session.acknowledge(new, &mut out);
        assert_eq!(written(&mut out), b"\x40\x02\0\x09", "once");
    }

    #[test]
    fn exactly_once_means_that_a_repetition_is_answered_and_not_handed_on() {
        let (mut session, mut out) = (Session::default(), BytesMut::new());
        session.resume(false, &mut out);
        let _feed = subscribe(&mut session, &mut out);
        let take = |session: &mut Session, out: &mut BytesMut| {
            session.packet(Packet::Publish(arriving("x", Qos::ExactlyOnce, 5)), out)
        };
        let (_, message) = take(&mut session, &mut out).expect("it is new");
        assert!(take(&mut session, &mut out).is_none(), "it is in hand");
        written(&mut out);
        session.acknowledge(message.receipt.expect("to be confirmed"), &mut out);
        assert_eq!(written(&mut out), b"\x50\x02\0\x05");
        session.resume(true, &mut out);
        written(&mut out);
        assert!(take(&mut session, &mut out).is_none(), "it was handled");
        assert_eq!(written(&mut out), b"\x50\x02\0\x05");
        session.packet(Packet::PubRel(5), &mut out);
        assert_eq!(written(&mut out), b"\x70\x02\0\x05");
        assert!(take(&mut session, &mut out).is_some(), "the id is free for another message");
    }

    #[test]
    fn what_nobody_has_asked_for_waits_until_somebody_does() {
        let (mut session, mut out) = (Session::default(), BytesMut::new());
        session.resume(true, &mut out);
        assert!(session.packet(Packet::Publish(arriving("early", Qos::AtLeastOnce, 1)), &mut out).is_none());
        let (feed, claimed) = subscribe(&mut session, &mut out);
        assert_eq!(claimed.len(), 1);

        drop(feed);
        let rest = claimed.into_iter().map(|(_, message)| message).collect();
        session.command(Command::Detach { filter: "t".to_owned(), rest, unsubscribe: false }, &mut out);
        let (_feed, claimed) = subscribe(&mut session, &mut out);
        assert_eq!(claimed.len(), 1, "what was not handled is for the next subscription");
    }
}
