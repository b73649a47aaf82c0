//! What do documents say of a conversation? Asked when it is judged, at each of its ends that is an endpoint of this host.
//!
//! Everything is written down on the desk: the functions out of line hand on numbers alone, and what the verifier does not know of it does not multiply.

use sluice_datapath_common::{
    DropReason, Family, Ipv4,
    counter::Counter,
    policy::{
        Cell, CellKey, DENY, EGRESS, EVERYBODY, INGRESS, Judgement, ListKey, MAX_GROUPS, NOBODY, REJECT, Subject,
        VerdictKey,
    },
};

use super::admit::Number;
use crate::{
    family::Layer3,
    maps::{self, CELLS, Desk, LISTS, Prefix, SUBJECTS, Table, VERDICTS},
    packet::{Frame, Layer4},
};

/// What is said at one end, as it is gathered.
#[repr(C)]
pub struct Said<F: Family> {
    /// So far.
    judgement: Judgement,
    /// Who is judged.
    subject: u64,
    /// The group that is heard of.
    group: u64,
    /// Who is on the other side.
    peer: F::Address,
    /// The port, or what stands for it, network byte order.
    port: u16,
    /// IP protocol number.
    protocol: u8,
}

/// The number of a judgement that is fine.
const OURS: Number = 0;

/// Weighs the conversation that lies on the desk, as it is planned. `Ours`: nobody is against it. Out of line for its stack.
#[inline(always)]
pub fn weigh<F: Layer3>(frame: Frame) -> Number {
    let Some(desk) = F::desk() else {
        return DropReason::PolicyDenied as Number;
    };
    desk.rule = 0;
    desk.strictest = 0;
    if maps::settings().is_none_or(|settings| settings.policies == 0) {
        return OURS;
    }
    let (opener, other) = (desk.plan.back.endpoint, desk.plan.there.endpoint);
    // What somebody says to itself is nobody's business; of those who are none of ours nothing is said.
    if opener == other {
        return OURS;
    }
    desk.said.protocol = desk.key.protocol;
    desk.said.port = match desk.key.protocol == F::ICMP {
        true => question::<F>(frame).to_be(),
        false => desk.plan.destination_port,
    };
    let (said, heard) = (
        F::weigh_end(opener, EGRESS, frame.len()),
        F::weigh_end(other, INGRESS, frame.len()),
    );
    let said = if said > heard { said } else { heard };
    if said == u32::from(DENY) {
        DropReason::PolicyDenied as Number
    } else if said == u32::from(REJECT) {
        DropReason::PolicyRejected as Number
    } else {
        OURS
    }
}

/// The type of the ICMP question that the packet in hand is or answers. Of a piece that does not bear it, an echo's: those are what comes in pieces.
#[inline(always)]
fn question<F: Layer3>(frame: Frame) -> u16 {
    let echo = if F::AF == Ipv4::AF { 8 } else { 128 };
    let Some(facts) = F::facts(false) else { return echo };
    if facts.layer4 == Layer4::Continuation {
        return echo;
    }
    let Ok([kind, ..]) = frame.peek(facts.above) else {
        return echo;
    };
    match (F::AF == Ipv4::AF, kind) {
        (true, 0) | (false, 129) => echo,
        // timestamp, information, address mask (RFC 792, RFC 950)
        (true, 14) => 13,
        (true, 16) => 15,
        (true, 18) => 17,
        (_, kind) => u16::from(kind),
    }
}

/// What is said of an endpoint as one end of the conversation, for a packet of this length: 0 or a verdict. Counts it. Out of line for its stack.
#[inline(always)]
pub fn weigh_end<F: Layer3>(endpoint: u32, direction: u32, length: u32) -> u32 {
    let subject = subject_of(endpoint, direction);
    if subject == 0 {
        return 0;
    }
    let Some(desk) = F::desk() else { return u32::from(DENY) };
    let Desk { key, plan, said, .. } = desk;
    said.subject = subject;
    said.judgement.said = 0;
    said.judgement.audited = 0;
    said.peer = if direction == EGRESS {
        plan.destination
    } else {
        key.source
    };
    said.group = EVERYBODY;
    F::hear();
    hear_groups::<F>();
    if said_nothing::<F>() != 0 {
        hear_default::<F>();
    }
    count::<F>(u64::from(length))
}

/// Who is judged; 0: nobody. Out of line for its stack.
#[inline(never)]
fn subject_of(endpoint: u32, direction: u32) -> u64 {
    const TABLE: Table<u32, Subject> = Table::of(&raw const SUBJECTS);
    if endpoint == 0 {
        return 0;
    }
    let Some(subject) = TABLE.find(&endpoint) else { return 0 };
    // SAFETY: the kernel keeps the entry's slot readable until the program ends; the same goes for every entry below.
    let subject = unsafe { subject.as_ref() };
    if direction == EGRESS {
        subject.egress
    } else {
        subject.ingress
    }
}

/// Hears all groups of the peer. Out of line for its stack.
#[inline(never)]
fn hear_groups<F: Layer3>() -> u32 {
    let Some(desk) = F::desk() else { return 0 };
    let Some(known) = F::KNOWN.find(&Prefix::whole(desk.said.peer)) else {
        return 0;
    };
    let mut place = 0;
    while place < MAX_GROUPS {
        // SAFETY: as above.
        let group = unsafe { known.as_ref() }.groups[place];
        if group == 0 {
            break;
        }
        desk.said.group = group;
        F::hear();
        place += 1;
    }
    0
}

/// Is something still not said? Out of line: the verifier is not to walk on once for each answer.
#[inline(never)]
fn said_nothing<F: Layer3>() -> u32 {
    F::desk().is_some_and(|desk| desk.said.judgement.said == 0 || desk.said.judgement.audited == 0) as u32
}

/// Hears what is said of the group at hand. Out of line for its stack.
#[inline(always)]
pub fn hear<F: Layer3>() -> u32 {
    const TABLE: Table<CellKey, Cell> = Table::of(&raw const CELLS);
    const TRIE: Table<Prefix<ListKey>, Judgement> = Table::of(&raw const LISTS);
    let Some(desk) = F::desk() else { return 0 };
    let said = &mut desk.said;
    let key = CellKey {
        subject: said.subject,
        group: said.group,
    };
    let Some(cell) = TABLE.find(&key) else { return 0 };
    // SAFETY: as above.
    let cell = unsafe { cell.as_ref() };
    if cell.list != 0
        && let Some(more) = TRIE.find(&Prefix::whole(ListKey::of(cell.list, said.protocol, said.port)))
    {
        // SAFETY: as above.
        return take(&mut said.judgement, unsafe { more.as_ref() });
    }
    take(&mut said.judgement, &cell.all)
}

/// The stricter of both; of two that are as strict, that by the rule of the lesser number.
#[inline(always)]
fn take(said: &mut Judgement, more: &Judgement) -> u32 {
    if more.said > said.said || (more.said == said.said && more.rule < said.rule) {
        said.said = more.said;
        said.rule = more.rule;
    }
    if more.audited > said.audited || (more.audited == said.audited && more.audited_rule < said.audited_rule) {
        said.audited = more.audited;
        said.audited_rule = more.audited_rule;
    }
    0
}

/// Hears what is said of those whom nobody has spoken of. Out of line for its stack.
#[inline(never)]
fn hear_default<F: Layer3>() -> u32 {
    const TABLE: Table<CellKey, Cell> = Table::of(&raw const CELLS);
    let Some(desk) = F::desk() else { return 0 };
    let said = &mut desk.said;
    let key = CellKey {
        subject: said.subject,
        group: NOBODY,
    };
    let Some(cell) = TABLE.find(&key) else {
        // The subject is closed to all whom nobody speaks of; that its table is being written does not open it.
        if said.judgement.said == 0 {
            said.judgement.said = DENY;
            said.judgement.rule = 0;
        }
        return 0;
    };
    // SAFETY: as above.
    let default = unsafe { cell.as_ref() }.all;
    if said.judgement.said == 0 {
        said.judgement.said = default.said;
        said.judgement.rule = default.rule;
    }
    if said.judgement.audited == 0 {
        said.judgement.audited = default.audited;
        said.judgement.audited_rule = default.audited_rule;
    }
    0
}

/// Counts what was said, and answers it. What documents under audit are against is counted by their rules, too.
#[inline(always)]
fn count<F: Layer3>(bytes: u64) -> u32 {
    let Some(desk) = F::desk() else { return u32::from(DENY) };
    let Judgement {
        rule,
        audited_rule,
        said,
        audited,
        ..
    } = desk.said.judgement;
    if said != 0 {
        note(rule, u32::from(said), bytes);
    }
    if u32::from(said) > desk.strictest {
        desk.strictest = u32::from(said);
        desk.rule = rule;
    }
    if audited >= REJECT && said < REJECT {
        note(audited_rule, u32::from(audited) | AUDITED, bytes);
    }
    u32::from(said)
}

/// Beside a verdict: nothing was done.
const AUDITED: u32 = 0x100;

/// Out of line for its stack.
#[inline(never)]
fn note(rule: u64, verdict: u32, bytes: u64) -> u32 {
    const TABLE: Table<VerdictKey, Counter> = Table::of(&raw const VERDICTS);
    let key = VerdictKey {
        rule,
        verdict: verdict as u8,
        audited: (verdict >> 8) as u8,
        padding: [0; 6],
    };
    if let Some(counter) = TABLE.find(&key) {
        // SAFETY: two words of an entry.
        unsafe {
            maps::add_word(&raw mut (*counter.as_ptr()).packets, 1);
            maps::add_word(&raw mut (*counter.as_ptr()).bytes, bytes);
        }
    } else {
        // Without room nobody is told how often a rule spoke; what it says is done all the same. Of two who are first at once, one is not counted.
        let _ = TABLE.insert(&key, &raw const *&Counter { packets: 1, bytes }, 0);
    }
    0
}
