//! `sluice ps`

use clap::Args;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, ellipsis, row, short},
    measure,
    output::print,
    query::{filters, query},
};

const LISTING: Listing = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headings: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Labels", "LABELS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Mounts", "MOUNTS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("Size", "SIZE"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ],
};

/// `sluice ps`
#[derive(Args)]
pub struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only those that match, as name=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// The newest so many, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<u32>,
    /// The newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not cut anything off
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// With their sizes
    #[arg(short, long)]
    size: bool,
}

impl Ps {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let filters = filters(&self.filter)?;
        let limit = if self.latest { Some(1) } else { self.last }.map(|number| number.to_string());
        let pairs = [
            ("all", self.all.then_some("1")),
            ("size", self.size.then_some("1")),
            ("limit", limit.as_deref()),
            ("filters", filters.as_deref()),
        ];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let list = daemon.get(&format!("/containers/json{}", query(&pairs))).await?;
        let rows: Vec<Row> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| self.row(container))
            .collect();
        let format = match (self.quiet, &self.format) {
            (true, None) => Some("{{.ID}}"),
            (_, format) => format.as_deref(),
        };
        print(&LISTING.show(format, &rows)?)
    }

    fn row(&self, container: &Value) -> Row {
        let text = |name: &str| container[name].as_str().unwrap_or_default().to_owned();
        let (id, image, command) = (text("Id"), text("Image"), text("Command"));
        let created = container["Created"].as_i64().unwrap_or_default();
        let networks = container["NetworkSettings"]["Networks"].as_object();
        let mounts = container["Mounts"].as_array().into_iter().flatten();
        let mounts: Vec<&str> = mounts
            .filter_map(|mount| {
                mount["Name"]
                    .as_str()
                    .filter(|name| !name.is_empty())
                    .or(mount["Source"].as_str())
            })
            .collect();
        let labels = container["Labels"].as_object();
        let pairs = labels
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        let mut row = row([
            ("ID", if self.no_trunc { id } else { short(&id).to_owned() }),
            ("Image", self.image(&image)),
            (
                "Command",
                format!("{:?}", if self.no_trunc { command } else { ellipsis(&command, 20) }),
            ),
            ("CreatedAt", measure::local(created)),
            ("RunningFor", measure::ago(created)),
            ("State", text("State")),
            ("Status", text("Status")),
            ("Ports", ports(&container["Ports"])),
            ("Names", names(&container["Names"])),
            (
                "Networks",
                networks
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.as_str())
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            ("Mounts", mounts.join(",")),
            (
                "LocalVolumes",
                mounts
                    .iter()
                    .filter(|mount| !mount.starts_with('/'))
                    .count()
                    .to_string(),
            ),
            ("Labels", pairs.collect::<Vec<_>>().join(",")),
            ("Size", size(container)),
        ]);
        row.insert("LabelMap".into(), container["Labels"].clone());
        row
    }

    fn image(&self, image: &str) -> String {
        match image {
            "" => "<no image>".into(),
            id if id.starts_with("sha256:") && !self.no_trunc => short(id).to_owned(),
            name => name.to_owned(),
        }
    }
}

/// Without the slash the API has before them, and without those of links.
fn names(names: &Value) -> String {
    let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = names
        .map(|name| name.trim_start_matches('/'))
        .filter(|name| !name.contains('/'));
    own.collect::<Vec<_>>().join(",")
}

fn size(container: &Value) -> String {
    let bytes = |name: &str| container[name].as_u64().unwrap_or_default();
    match bytes("SizeRootFs") {
        0 => measure::size(bytes("SizeRw")),
        whole => format!("{} (virtual {})", measure::size(bytes("SizeRw")), measure::size(whole)),
    }
}

/// `0.0.0.0:8000-8002->80-82/tcp, 90/udp`: runs of ports that go together are one.
fn ports(list: &Value) -> String {
    let mut ports: Vec<(String, String, u64, u64)> = Vec::new();
    for port in list.as_array().into_iter().flatten() {
        let number = |name: &str| port[name].as_u64().unwrap_or_default();
        let text = |name: &str| port[name].as_str().unwrap_or_default().to_owned();
        ports.push((text("Type"), text("IP"), number("PrivatePort"), number("PublicPort")));
    }
    ports.sort_by(|a, b| (a.2, &a.1, a.3, &a.0).cmp(&(b.2, &b.1, b.3, &b.0)));
    ports.dedup();
    // runs: protocol, address, first and last inside, first outside
    let mut runs: Vec<(String, String, u64, u64, u64)> = Vec::new();
    for (protocol, address, inside, outside) in ports {
        let goes_on = runs.iter_mut().find(|run| {
            let distance = inside.wrapping_sub(run.2);
            (&run.0, &run.1, run.3 + 1) == (&protocol, &address, inside)
                && (run.4 == 0 && outside == 0 || run.4 != 0 && outside == run.4 + distance)
        });
        match goes_on {
            Some(run) => run.3 = inside,
            None => runs.push((protocol, address, inside, inside, outside)),
        }
    }
    let shown = runs.iter().map(|(protocol, address, first, last, outside)| {
        let range = |first: u64, last: u64| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        let inside = format!("{}/{protocol}", range(*first, *last));
        match outside {
            0 => inside,
            outside => {
                let address = if address.contains(':') {
                    format!("[{address}]")
                } else {
                    address.clone()
                };
                format!("{address}:{}->{inside}", range(*outside, outside + last - first))
            }
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_that_go_together_are_one_range() {
        let port = |ip: &str, inside: u16, outside: u16| json!({"IP": ip, "PrivatePort": inside, "PublicPort": outside, "Type": "tcp"});
        let list = json!([port("0.0.0.0", 81, 8001), port("0.0.0.0", 80, 8000), port("::", 80, 8000), port("::", 81, 8001),
            {"PrivatePort": 53, "Type": "udp"}]);
        assert_eq!(
            ports(&list),
            "53/udp, 0.0.0.0:8000-8001->80-81/tcp, [::]:8000-8001->80-81/tcp"
        );
        assert_eq!(
            ports(&json!([port("0.0.0.0", 80, 9000), port("0.0.0.0", 81, 8000)])),
            "0.0.0.0:9000->80/tcp, 0.0.0.0:8000->81/tcp"
        );
        assert_eq!(ports(&Value::Null), "");
    }

    #[test]
    fn a_row_is_as_docker_shows_it() {
        let container = json!({"Id": "0123456789abcdef", "Names": ["/web", "/other/link"], "Image": "nginx", "Command": "nginx -g 'daemon off;'",
            "Created": 0, "State": "running", "Status": "Up 2 minutes", "Labels": {"a": "b"}, "NetworkSettings": {"Networks": {"bridge": {}}}});
        let ps = Ps {
            all: false,
            filter: vec![],
            format: None,
            last: None,
            latest: false,
            no_trunc: false,
            quiet: false,
            size: false,
        };
        let row = ps.row(&container);
        let show = |format| LISTING.show(Some(format), std::slice::from_ref(&row)).unwrap();
        assert_eq!(
            show("{{.ID}} {{.Names}} {{.Command}} {{.Networks}}"),
            "0123456789ab web \"nginx -g 'daemon of…\" bridge\n"
        );
        assert_eq!(show("{{.Label \"a\"}} {{.Labels}}"), "b a=b\n");
        assert!(show("json").starts_with("{\"Command\":"));
    }
}
