//! `sluice ps`

use clap::Args;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    failure::Failure,
    listing::{self, Listing, Row, ellipsis, short},
    measure,
    output::print,
    query::{filters, query},
};

/// Containers as they are listed.
pub const LISTING: Listing = Listing {
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

const WITH_SIZE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

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
            .map(|container| row(container, self.no_trunc))
            .collect();
        let format = match (self.quiet, &self.format) {
            (true, None) => Some("{{.ID}}"),
            (_, None) if self.size => Some(WITH_SIZE),
            (_, format) => format.as_deref(),
        };
        print(&LISTING.show(format, &rows)?)
    }
}

/// A container as its row.
pub fn row(container: &Value, whole: bool) -> Row {
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
    let shown_mounts = mounts.iter().map(|mount| match whole {
        true => (*mount).to_owned(),
        false => ellipsis(mount, 15),
    });
    let shown_mounts: Vec<String> = shown_mounts.collect();
    let labels = container["Labels"].as_object();
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let mut row = listing::row([
        ("ID", if whole { id } else { short(&id).to_owned() }),
        ("Image", self::image(&image, whole)),
        (
            "Command",
            format!("{:?}", if whole { command } else { ellipsis(&command, 20) }),
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
        ("Mounts", shown_mounts.join(",")),
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

fn image(image: &str, whole: bool) -> String {
    match image {
        "" => "<no image>".into(),
        id if id.starts_with("sha256:") && !whole => short(id).to_owned(),
        name => name.to_owned(),
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

/// `90/udp, 0.0.0.0:8000-8002->8000-8002/tcp, 0.0.0.0:8080->80/tcp`, in Docker's order: runs of ports that are the same on both sides are one and
/// come first, then each that is another outside.
fn ports(list: &Value) -> String {
    let mut ports: Vec<(u64, &str, u64, &str)> = Vec::new();
    for port in list.as_array().into_iter().flatten() {
        let number = |name: &str| port[name].as_u64().unwrap_or_default();
        let text = |name: &str| port[name].as_str().unwrap_or_default();
        ports.push((number("PrivatePort"), text("IP"), number("PublicPort"), text("Type")));
    }
    ports.sort_unstable();
    ports.dedup();
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    // address, protocol, first and last
    let mut runs: Vec<(&str, &str, u64, u64)> = Vec::new();
    for (inside, address, outside, protocol) in ports {
        if !address.is_empty() && inside != outside {
            others.push(format!("{}:{outside}->{inside}/{protocol}", bracketed(address)));
            continue;
        }
        match runs.iter_mut().find(|run| (run.0, run.1) == (address, protocol)) {
            Some(run) if run.3 + 1 == inside => run.3 = inside,
            Some(run) => {
                shown.push(run_of_ports(*run));
                (run.2, run.3) = (inside, inside);
            }
            None => runs.push((address, protocol, inside, inside)),
        }
    }
    shown.extend(runs.into_iter().map(run_of_ports));
    shown.extend(others);
    shown.join(", ")
}

fn run_of_ports((address, protocol, first, last): (&str, &str, u64, u64)) -> String {
    let range = match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    match address {
        "" => format!("{range}/{protocol}"),
        address => format!("{}:{range}->{range}/{protocol}", bracketed(address)),
    }
}

fn bracketed(address: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_that_go_together_are_one_range() {
        let port = |ip: &str, inside: u16, outside: u16| json!({"IP": ip, "PrivatePort": inside, "PublicPort": outside, "Type": "tcp"});
        let list = json!([port("0.0.0.0", 81, 81), port("0.0.0.0", 80, 80), port("::", 80, 80), port("::", 81, 81),
            {"PrivatePort": 53, "Type": "udp"}, port("0.0.0.0", 90, 8090)]);
        assert_eq!(
            ports(&list),
            "53/udp, 0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp, 0.0.0.0:8090->90/tcp"
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
        let row = row(&container, false);
        let show = |format| LISTING.show(Some(format), std::slice::from_ref(&row)).unwrap();
        assert_eq!(
            show("{{.ID}} {{.Names}} {{.Command}} {{.Networks}}"),
            "0123456789ab web \"nginx -g 'daemon of…\" bridge\n"
        );
        assert_eq!(show("{{.Label \"a\"}} {{.Labels}}"), "b a=b\n");
        assert!(show("json").starts_with("{\"Command\":"));
    }
}
