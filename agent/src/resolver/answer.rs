//! What is answered: a question's bytes in, an answer's bytes out, or word that others are to be asked. Pure.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};

use super::directory::Asker;

/// How long an answer about our own names may be kept, seconds. What changes is seen after this time by those who keep answers; few do.
pub const LIFETIME: u32 = 5;
/// What fits into a datagram for everybody (RFC 1035), and the most that we send in one (no network carries less than 1280 bytes in one piece).
const SMALL: u16 = 512;
const LARGE: u16 = 1232;
/// A header: id, flags and four counts.
const HEADER: usize = 12;

/// How the question came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Road {
    /// In a datagram, and the answer has to fit into one.
    Datagram,
    /// In a stream.
    Stream,
}

/// What is to be done with a question.
#[derive(Debug)]
pub enum Decision {
    /// This is said.
    Say(Vec<u8>),
    /// Others are asked.
    Ask(Question),
    /// It was none.
    Ignore,
}

/// A question that others are asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its id, as the asker chose it.
    pub id: u16,
    /// What is asked.
    pub query: Query,
    /// It asks for recursion.
    recursion: bool,
}

/// Answers a question. `turn` grows with each, so that who shares a name is named first in turn.
pub fn decide(asker: Option<Asker<'_>>, bytes: &[u8], road: Road, turn: usize) -> Decision {
    let Some(id) = bytes
        .get(..HEADER)
        .and_then(|header| header.first_chunk::<2>())
        .map(|id| u16::from_be_bytes(*id))
    else {
        return Decision::Ignore;
    };
    // an answer is not answered, nor is what cannot be read but says that it is one
    if bytes[2] & 0x80 != 0 {
        return Decision::Ignore;
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return say(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
    };
    if message.metadata.op_code != OpCode::Query {
        return say(&empty(&message, ResponseCode::NotImp));
    }
    let [query] = &message.queries[..] else {
        return say(&empty(&message, ResponseCode::FormErr));
    };
    // nobody asks but endpoints that are there; of one that just went away nobody waits for the answer
    let Some(asker) = asker else {
        return say(&empty(&message, ResponseCode::Refused));
    };
    match known(asker, query, turn) {
        Some(records) => {
            let mut answer = empty(&message, ResponseCode::NoError);
            answer.metadata.authoritative = true;
            answer.add_answers(records);
            fit(answer, &message, road)
        }
        None if keeps_inside(asker, query) => say(&empty(&message, ResponseCode::NoError)),
        None => Decision::Ask(Question {
            id,
            query: query.clone(),
            recursion: message.metadata.recursion_desired,
        }),
    }
}

/// A name with a single label stays here when its asker adds a domain by itself.
fn keeps_inside(asker: Asker<'_>, query: &Query) -> bool {
    matches!(query.query_type(), RecordType::A | RecordType::AAAA)
        && query.name().num_labels() == 1
        && asker.wish().keeps_single_labels
}

/// The records that answer a question about names of ours, none if there is such a name and nothing of that kind; `None`: no name of ours.
fn known(asker: Asker<'_>, query: &Query, turn: usize) -> Option<Vec<Record>> {
    if query.query_class() != DNSClass::IN {
        return None;
    }
    if query.query_type() == RecordType::PTR {
        return known_address(asker, query.name()).map(|name| {
            let record = |name| Record::from_rdata(query.name().clone(), LIFETIME, RData::PTR(PTR(name)));
            Name::from_ascii(format!("{name}.")).map(record).into_iter().collect()
        });
    }
    let addresses = asker.addresses(&plain(query.name())?)?;
    let mut records: Vec<Record> = addresses
        .into_iter()
        .filter_map(|address| match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(address))),
            (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
            _ => None,
        })
        .map(|data| Record::from_rdata(query.name().clone(), LIFETIME, data))
        .collect();
    if !records.is_empty() {
        let first = turn % records.len();
        records.rotate_left(first);
    }
    Some(records)
}

fn known_address(asker: Asker<'_>, name: &Name) -> Option<String> {
    let prefix = name.parse_arpa_name().ok()?;
    let whole = prefix.prefix_len() == prefix.max_prefix_len();
    whole.then(|| asker.name_of(prefix.addr())).flatten()
}

/// A name as it is written, in lower case and without the last dot. None: it has bytes that no name of ours has.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    text.make_ascii_lowercase();
    Some(text)
}

/// An answer without records.
fn empty(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGE);
        answer.set_edns(edns);
    }
    answer
}

fn say(answer: &Message) -> Decision {
    match answer.to_vec() {
        Ok(bytes) => Decision::Say(bytes),
        Err(_) => Decision::Ignore,
    }
}

/// An answer that is too long for the asker's datagram loses records from its end, and says so: who wants all of them asks by a stream.
fn fit(mut answer: Message, question: &Message, road: Road) -> Decision {
    let most = match (&question.edns, road) {
        (_, Road::Stream) => usize::from(u16::MAX),
        (Some(edns), _) => usize::from(edns.max_payload().clamp(SMALL, LARGE)),
        (None, _) => usize::from(SMALL),
    };
    loop {
        match answer.to_vec() {
            Ok(bytes) if bytes.len() <= most => return Decision::Say(bytes),
            Ok(bytes) if !answer.answers.is_empty() => {
                answer.metadata.truncation = true;
                // each record is as long as the others, but for the name of the first
                let kept = answer.answers.len() * most / bytes.len();
                answer.answers.truncate(kept.min(answer.answers.len() - 1));
            }
            _ => return Decision::Ignore,
        }
    }
}

impl Question {
    /// Said when nobody outside can be asked, or nobody has answered.
    pub fn failure(&self) -> Option<Vec<u8>> {
        let mut answer = Message::error_msg(self.id, OpCode::Query, ResponseCode::ServFail);
        answer.metadata.recursion_desired = self.recursion;
        answer.metadata.recursion_available = true;
        answer.add_query(self.query.clone());
        answer.to_vec().ok()
    }

    /// Is it the answer to this question, asked under `id`?
    pub fn is_answered_by(&self, bytes: &[u8], id: u16) -> Option<ResponseCode> {
        let header = bytes.first_chunk::<HEADER>()?;
        if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 {
            return None;
        }
        let code = ResponseCode::from(0, header[3] & 0x0f);
        // some who refuse leave the question out
        if u16::from_be_bytes([header[4], header[5]]) == 0 {
            return (code != ResponseCode::NoError).then_some(code);
        }
        let mut decoder = hickory_proto::serialize::binary::BinDecoder::new(bytes);
        decoder.read_slice(HEADER).ok()?;
        let queries = Message::read_queries(&mut decoder, 1).ok()?;
        let [query] = &queries[..] else { return None };
        // names are compared without regard to case
        (*query == self.query).then_some(code)
    }
}
