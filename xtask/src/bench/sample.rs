//! What was measured, and what it says: best, median, ratios to the bare veth pair of the same run.

use super::engine::Kind;
use super::figure::Figure;
use super::path::Path;

/// All samples of a run.
#[derive(Default)]
pub struct Samples {
    rows: Vec<Sample>,
}

struct Sample {
    round: u32,
    path: Path,
    figure: Figure,
    kind: Kind,
    value: f64,
}

/// A series of samples of the same thing, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In the order of the rounds.
    pub values: Vec<f64>,
    /// Noise only ever slows things, so this is the figure to read.
    pub best: f64,
    /// Shows how noisy the run was.
    pub median: f64,
    /// Of the best to the best of the bare veth pair.
    pub ratio: Option<f64>,
    /// The median of the ratios within each round.
    pub median_ratio: Option<f64>,
}

impl Samples {
    /// Adds a sample.
    pub fn add(&mut self, round: u32, path: Path, figure: Figure, kind: Kind, value: f64) {
        self.rows.push(Sample {
            round,
            path,
            figure,
            kind,
            value,
        });
    }

    /// Is anything known of this path?
    pub fn has(&self, path: Path, figure: Figure) -> bool {
        self.rows.iter().any(|row| row.path == path && row.figure == figure)
    }

    /// The engines that have samples.
    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.rows.iter().any(|row| row.kind == *kind))
            .collect()
    }

    /// What is known of an engine on a path.
    pub fn summary(&self, path: Path, figure: Figure, kind: Kind) -> Option<Summary> {
        let own = self.series(path, figure, kind);
        let bare = self.series(path, figure, Kind::Bare);
        let best_of = |series: &[(u32, f64)]| {
            series
                .iter()
                .map(|(_, value)| *value)
                .reduce(|a, b| figure.better(a, b))
        };
        let ratios = own.iter().filter_map(|(round, value)| {
            let (_, other) = bare.iter().find(|(other, _)| other == round)?;
            Some(value / other)
        });
        let values: Vec<f64> = own.iter().map(|(_, value)| *value).collect();
        let best = best_of(&own)?;
        Some(Summary {
            best,
            median: median(values.clone())?,
            ratio: best_of(&bare).map(|bare| best / bare),
            median_ratio: median(ratios.collect()),
            values,
        })
    }

    fn series(&self, path: Path, figure: Figure, kind: Kind) -> Vec<(u32, f64)> {
        self.rows
            .iter()
            .filter(|row| row.path == path && row.figure == figure && row.kind == kind)
            .map(|row| (row.round, row.value))
            .collect()
    }
}

/// The value in the middle; of an even number, the mean of the two there.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_of_the_best_and_of_the_same_round() {
        let mut samples = Samples::default();
        for (round, bare, sluice) in [(1, 10.0, 5.0), (2, 20.0, 19.0), (3, 8.0, 8.0)] {
            samples.add(round, Path::Containers, Figure::Stream, Kind::Bare, bare);
            samples.add(round, Path::Containers, Figure::Stream, Kind::Sluice, sluice);
        }
        let summary = samples.summary(Path::Containers, Figure::Stream, Kind::Sluice).unwrap();
        assert_eq!(summary.best, 19.0);
        assert_eq!(summary.median, 8.0);
        assert_eq!(summary.ratio, Some(0.95));
        assert_eq!(summary.median_ratio, Some(0.95));
    }

    #[test]
    fn the_best_round_trip_is_the_shortest() {
        let mut samples = Samples::default();
        for (round, value) in [(1, 6.0), (2, 5.0)] {
            samples.add(round, Path::Local, Figure::RoundTrip, Kind::Bare, value);
        }
        let summary = samples.summary(Path::Local, Figure::RoundTrip, Kind::Bare).unwrap();
        assert_eq!(summary.best, 5.0);
        assert!(samples.summary(Path::Local, Figure::RoundTrip, Kind::Sluice).is_none());
    }
}
