//! A case that fails, made as short as it can be and still fail.

use super::stage::Stage;
use super::step::{Case, Step};
use super::trial::Trial;

/// What hangs on a random choice of the datapath does not fail every time.
const TRIES: usize = 3;

/// The shortest case found, and what is wrong with it.
pub fn shrink(stage: &mut Stage, mut case: Case, mut what: String) -> (Case, String) {
    if let Some((steps, why)) = fails(stage, &case) {
        case.steps.truncate(steps);
        what = why;
    }
    let mut length = case.steps.len().div_ceil(2);
    while length > 0 {
        let mut start = 0;
        while start < case.steps.len() {
            let mut shorter = case.clone();
            let end = (start + length).min(shorter.steps.len());
            shorter.steps.drain(start..end);
            match fails(stage, &shorter) {
                Some((steps, why)) => {
                    shorter.steps.truncate(steps);
                    (case, what) = (shorter, why);
                }
                None => start += length,
            }
        }
        length /= 2;
    }
    for index in 0..case.steps.len() {
        while let Some((plainer, why)) = plainer(stage, &case, index) {
            (case, what) = (plainer, why);
        }
    }
    (case, what)
}

fn plainer(stage: &mut Stage, case: &Case, index: usize) -> Option<(Case, String)> {
    let Some((_, Step::Says(speech))) = case.steps.get(index) else {
        return None;
    };
    speech.plainer().into_iter().find_map(|plain| {
        let mut plainer = case.clone();
        plainer.steps[index].1 = Step::Says(plain);
        let (_, why) = fails(stage, &plainer)?;
        Some((plainer, why))
    })
}

/// After how many steps, and why.
fn fails(stage: &mut Stage, case: &Case) -> Option<(usize, String)> {
    (0..TRIES).find_map(|_| Trial::of(stage, case).err())
}
