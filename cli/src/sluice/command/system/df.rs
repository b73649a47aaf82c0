//! `sluice system df`: what takes how much room, in sums or one by one.

use clap::Args;
use serde_json::Value;

use crate::{
    command::{image, ps},
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, row},
    measure,
    output::print,
};

/// `sluice system df`
#[derive(Args)]
pub struct Df {
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// One by one
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
}

const SUMS: Listing = Listing {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headings: &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ],
};

const IMAGES: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headings: &[
        ("Containers", "CONTAINERS"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
};

const CONTAINERS: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";

const VOLUMES: Listing = Listing {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    headings: &[("Links", "LINKS"), ("Name", "VOLUME NAME"), ("Size", "SIZE")],
};

const CACHE: Listing = Listing {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headings: &[
        ("CacheType", "CACHE TYPE"),
        ("CreatedSince", "CREATED"),
        ("ID", "CACHE ID"),
        ("LastUsedSince", "LAST USED"),
        ("Shared", "SHARED"),
        ("Size", "SIZE"),
        ("UsageCount", "USAGE"),
    ],
};

impl Df {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let usage = daemon.get("/system/df").await?;
        match self.verbose {
            true => print(&one_by_one(&usage)?),
            false => print(&SUMS.show(self.format.as_deref(), &sums(&usage))?),
        }
    }
}

fn things<'a>(usage: &'a Value, kind: &str) -> &'a [Value] {
    usage[kind].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn unique(image: &Value) -> u64 {
    number(&image["Size"]).saturating_sub(number(&image["SharedSize"]))
}

fn sums(usage: &Value) -> [Row; 4] {
    let images = things(usage, "Images");
    let has_users = |image: &&Value| number(&image["Containers"]) > 0;
    let layers = number(&usage["LayersSize"]);
    let in_use: u64 = images.iter().filter(has_users).map(unique).sum();
    let containers = things(usage, "Containers");
    let runs = |container: &&Value| matches!(container["State"].as_str(), Some("running" | "paused" | "restarting"));
    let written = |container: &Value| number(&container["SizeRw"]);
    let volumes = things(usage, "Volumes");
    let size = |volume: &Value| number(&volume["UsageData"]["Size"]);
    let used = |volume: &&Value| number(&volume["UsageData"]["RefCount"]) > 0;
    [
        line(
            "Images",
            images.len(),
            images.iter().filter(has_users).count(),
            layers,
            layers.saturating_sub(in_use),
        ),
        line(
            "Containers",
            containers.len(),
            containers.iter().filter(runs).count(),
            containers.iter().map(written).sum(),
            containers
                .iter()
                .filter(|container| !runs(container))
                .map(written)
                .sum(),
        ),
        line(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(used).count(),
            volumes.iter().map(size).sum(),
            volumes.iter().filter(|volume| !used(volume)).map(size).sum(),
        ),
        row([
            ("Type", "Build Cache".to_owned()),
            ("TotalCount", "0".to_owned()),
            ("Active", "0".to_owned()),
            ("Size", measure::exact_size(0)),
            ("Reclaimable", measure::exact_size(0)),
        ]),
    ]
}

fn line(kind: &str, total: usize, active: usize, size: u64, reclaimable: u64) -> Row {
    let share = match size {
        0 => String::new(),
        size => format!(" ({}%)", reclaimable.saturating_mul(100) / size),
    };
    row([
        ("Type", kind.to_owned()),
        ("TotalCount", total.to_string()),
        ("Active", active.to_string()),
        ("Size", measure::exact_size(size)),
        ("Reclaimable", measure::exact_size(reclaimable) + &share),
    ])
}

fn one_by_one(usage: &Value) -> Result<String, Failure> {
    let images = things(usage, "Images").iter().flat_map(|image| {
        let sizes = row([
            ("SharedSize", measure::exact_size(number(&image["SharedSize"]))),
            ("UniqueSize", measure::exact_size(unique(image))),
        ]);
        // of its names the first
        let rows = image::rows(image, false).into_iter().take(1);
        rows.map(move |mut row| {
            row.extend(sizes.clone());
            row
        })
    });
    let images: Vec<Row> = images.collect();
    let containers: Vec<Row> = things(usage, "Containers")
        .iter()
        .map(|container| {
            let mut row = ps::row(container, false);
            row.insert("Size".to_owned(), measure::size(number(&container["SizeRw"])).into());
            row
        })
        .collect();
    let volumes = things(usage, "Volumes").iter().map(|volume| {
        row([
            ("Name", volume["Name"].as_str().unwrap_or_default().to_owned()),
            ("Links", number(&volume["UsageData"]["RefCount"]).to_string()),
            ("Size", measure::exact_size(number(&volume["UsageData"]["Size"]))),
        ])
    });
    let volumes: Vec<Row> = volumes.collect();
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        IMAGES.show(None, &images)?,
        ps::LISTING.show(Some(CONTAINERS), &containers)?,
        VOLUMES.show(None, &volumes)?,
        measure::exact_size(0),
        CACHE.show(None, &[])?,
    ))
}
