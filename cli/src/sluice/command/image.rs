//! Images: list, name, remove, look back.

use clap::Args;
use serde_json::Value;

use crate::{
    command::each,
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, ellipsis, row, short},
    measure,
    output::print,
    query::{filters, query, segment},
};

const LISTING: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headings: &[
        ("Containers", "CONTAINERS"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
    ],
};

const STEPS: Listing = Listing {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headings: &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ],
};

/// `sluice images`
#[derive(Args)]
pub struct Images {
    /// Also those below others
    #[arg(short, long)]
    all: bool,
    /// Only those that match, as name=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not cut anything off
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// `sluice tag`
#[derive(Args)]
pub struct Tag {
    /// The image
    source: String,
    /// Its further name
    target: String,
}

/// `sluice rmi`
#[derive(Args)]
pub struct Rmi {
    /// Also when it has several names, or a stopped container uses it
    #[arg(short, long)]
    force: bool,
    /// Do not remove what only it stands on
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// `sluice history`
#[derive(Args)]
pub struct History {
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not cut anything off
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

impl Images {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let mut wanted = self.filter.clone();
        wanted.extend(self.name.iter().map(|name| format!("reference={name}")));
        let filters = filters(&wanted)?;
        let pairs = [("all", self.all.then_some("1")), ("filters", filters.as_deref())];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let list = daemon.get(&format!("/images/json{}", query(&pairs))).await?;
        let images = list.as_array().into_iter().flatten();
        if self.quiet && self.format.is_none() {
            // one for each name
            let ids: Vec<String> = images
                .flat_map(|image| {
                    let names = image["RepoTags"].as_array().map_or(1, |tags| tags.len().max(1));
                    std::iter::repeat_n(id(image, self.no_trunc) + "\n", names)
                })
                .collect();
            return print(&ids.concat());
        }
        let rows: Vec<Row> = images.flat_map(|image| rows(image, self.no_trunc)).collect();
        print(&LISTING.show(self.format.as_deref(), &rows)?)
    }
}

/// A row for each name.
pub fn rows(image: &Value, whole_id: bool) -> Vec<Row> {
    let tags = image["RepoTags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut names: Vec<(&str, &str)> = tags.map(split).collect();
    if names.is_empty() {
        names.push(("<none>", "<none>"));
    }
    let created = image["Created"].as_i64().unwrap_or_default();
    let rows = names.into_iter().map(|(repository, tag)| {
        row([
            ("Repository", repository.to_owned()),
            ("Tag", tag.to_owned()),
            ("ID", id(image, whole_id)),
            ("Digest", "<none>".into()),
            ("CreatedAt", measure::local(created)),
            ("CreatedSince", measure::ago(created)),
            ("Size", measure::size(image["Size"].as_u64().unwrap_or_default())),
            (
                "Containers",
                image["Containers"]
                    .as_u64()
                    .map_or("N/A".into(), |number| number.to_string()),
            ),
        ])
    });
    rows.collect()
}

fn id(image: &Value, whole: bool) -> String {
    let id = image["Id"].as_str().unwrap_or_default();
    if whole { id.to_owned() } else { short(id).to_owned() }
}

impl Tag {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let (repository, tag) = split(&self.target);
        let query = query(&[("repo", repository), ("tag", tag)]);
        daemon
            .post(&format!("/images/{}/tag{query}", segment(&self.source)))
            .await
            .map(drop)
    }
}

impl Rmi {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let query = query(&[("force", flag(self.force)), ("noprune", flag(self.no_prune))]);
        each(&self.images, false, async |name| {
            match daemon.delete(&format!("/images/{}{query}", segment(&name))).await {
                Ok(removed) => print(&lines(&removed)),
                // by force, what is not there is no failure
                Err(failure) if self.force && failure.is_missing() => {
                    eprintln!("{failure}");
                    Ok(())
                }
                Err(failure) => Err(failure),
            }
        })
        .await
    }
}

impl History {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let steps = daemon.get(&format!("/images/{}/history", segment(&self.image))).await?;
        let cut = |text: &str, width| {
            if self.no_trunc {
                text.to_owned()
            } else {
                ellipsis(text, width)
            }
        };
        let rows = steps.as_array().into_iter().flatten().map(|step| {
            let text = |name: &str| step[name].as_str().unwrap_or_default();
            let created = step["Created"].as_i64().unwrap_or_default();
            let id = if self.no_trunc { text("Id") } else { short(text("Id")) };
            row([
                ("ID", id.to_owned()),
                ("CreatedAt", measure::local(created)),
                ("CreatedSince", measure::ago(created)),
                ("CreatedBy", cut(&text("CreatedBy").replace('\t', " "), 45)),
                ("Size", measure::size(step["Size"].as_u64().unwrap_or_default())),
                ("Comment", text("Comment").to_owned()),
            ])
        });
        let rows: Vec<Row> = rows.collect();
        let format = if self.quiet {
            Some("{{.ID}}")
        } else {
            self.format.as_deref()
        };
        print(&STEPS.show(format, &rows)?)
    }
}

fn lines(removed: &Value) -> String {
    let mut text = String::new();
    for step in removed.as_array().into_iter().flatten() {
        for what in ["Untagged", "Deleted"] {
            if let Some(name) = step[what].as_str() {
                text.push_str(&format!("{what}: {name}\n"));
            }
        }
    }
    text
}

/// Repository and tag: a colon behind the last slash begins the tag.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = json!({"Id": "sha256:0123456789abcdef", "RepoTags": ["a:1", "r.example:5000/b:2"], "Created": 0, "Size": 142_000_000, "Containers": -1});
        let show = |image: &Value| {
            LISTING
                .show(
                    Some("{{.Repository}} {{.Tag}} {{.ID}} {{.Size}} {{.Containers}}"),
                    &rows(image, false),
                )
                .unwrap()
        };
        assert_eq!(
            show(&image),
            "a 1 0123456789ab 142MB N/A\nr.example:5000/b 2 0123456789ab 142MB N/A\n"
        );
        assert_eq!(
            show(&json!({"Id": "sha256:0123456789abcdef", "RepoTags": null, "Size": 0})),
            "<none> <none> 0123456789ab 0B N/A\n"
        );
    }

    #[test]
    fn removal_is_told_line_by_line() {
        assert_eq!(
            lines(&json!([{"Untagged": "a:1"}, {"Deleted": "sha256:0"}])),
            "Untagged: a:1\nDeleted: sha256:0\n"
        );
    }
}
