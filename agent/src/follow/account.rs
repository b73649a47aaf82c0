//! What the programs did not tell of.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;
use sluice_datapath_common::event::{CLOSED, EventPace, OPENED};

use crate::{map::pins::Maps, observe::reason_words, view::Untold};

/// What the programs did not tell of so far, by the reason's number: too many, and lost.
#[derive(Default)]
pub struct Account(BTreeMap<u32, (u64, u64)>);

impl Account {
    /// From now on.
    pub fn begin(maps: &Maps) -> io::Result<Self> {
        let mut account = Self::default();
        account.settle(maps)?;
        Ok(account)
    }

    /// What has come to it since.
    pub fn settle(&mut self, maps: &Maps) -> io::Result<Vec<Untold>> {
        let mut news = Vec::new();
        maps.EVENT_PACE.each(|reason, paces| {
            let (too_many, lost) = sums(paces);
            let before = self.0.insert(*reason, (too_many, lost)).unwrap_or_default();
            let (too_many, lost) = (too_many.wrapping_sub(before.0), lost.wrapping_sub(before.1));
            if too_many + lost > 0 {
                news.push(untold(*reason, too_many, lost));
            }
        })?;
        Ok(news)
    }
}

/// All that was ever not told of, by reason.
pub fn untold_of_all(maps: &Maps) -> io::Result<Vec<Untold>> {
    Account::default().settle(maps)
}

fn sums(paces: &[EventPace]) -> (u64, u64) {
    let sum = |of: fn(&EventPace) -> u64| paces.iter().map(of).sum();
    (sum(|pace| pace.too_many), sum(|pace| pace.lost))
}

fn untold(reason: u32, too_many: u64, lost: u64) -> Untold {
    let number = u8::try_from(reason).unwrap_or_default();
    Untold {
        time: Timestamp::now(),
        reason: match number {
            OPENED => "open".to_owned(),
            CLOSED => "close".to_owned(),
            reason => reason_words(reason).0,
        },
        number,
        too_many,
        lost,
    }
}
