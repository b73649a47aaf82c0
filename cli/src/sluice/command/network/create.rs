//! `sluice network create`

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{daemon::Daemon, failure::Failure, output::print};

/// `sluice network create`
#[derive(Args)]
pub struct Create {
    /// Let containers be put on it one by one
    #[arg(long)]
    attachable: bool,
    /// An address that somebody else has, as name=address
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// What stands behind it
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// The gateway's address in a subnet
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// No way out of it and none in
    #[arg(long)]
    internal: bool,
    /// The part of a subnet that containers get addresses of
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// IPv4; --ipv4=false for none
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv4: Option<bool>,
    /// IPv6, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// A label, as name=value
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// An option of the driver, as name=value
    #[arg(short, long, value_name = "OPTION")]
    opt: Vec<String>,
    /// A subnet
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    #[arg(value_name = "NETWORK")]
    name: String,
}

impl Create {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let made = daemon.post_json("/networks/create", &self.body()?).await?;
        print(&format!("{}\n", made["Id"].as_str().unwrap_or_default()))
    }

    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({
            "Name": self.name, "Driver": self.driver, "Internal": self.internal, "Attachable": self.attachable,
            "Labels": pairs(&self.label), "Options": pairs(&self.opt),
            "IPAM": { "Driver": "default", "Config": self.ranges()? },
        });
        for (member, wish) in [("EnableIPv4", self.ipv4), ("EnableIPv6", self.ipv6)] {
            if let Some(wish) = wish {
                body[member] = json!(wish);
            }
        }
        Ok(body)
    }

    /// What is said of each subnet: the daemon checks that it lies in it.
    fn ranges(&self) -> Result<Vec<Value>, Failure> {
        let mut ranges: Vec<Map<String, Value>> = self
            .subnet
            .iter()
            .map(|subnet| Map::from_iter([("Subnet".to_owned(), json!(subnet))]))
            .collect();
        let place = |text: &str, ranges: &[Map<String, Value>]| {
            let is_ipv6 = text.contains(':');
            let of_family =
                |range: &Map<String, Value>| range["Subnet"].as_str().is_some_and(|net| net.contains(':') == is_ipv6);
            ranges.iter().position(of_family)
        };
        for (member, texts) in [("IPRange", &self.ip_range), ("Gateway", &self.gateway)] {
            for text in texts {
                let index = place(text, &ranges)
                    .ok_or_else(|| Failure::Usage(format!("no matching subnet for {text}: name one with --subnet")))?;
                ranges[index].insert(member.to_owned(), json!(text));
            }
        }
        for text in &self.aux_address {
            let (name, address) = text
                .split_once('=')
                .ok_or_else(|| Failure::Usage(format!("invalid --aux-address {text}: name=address is wanted")))?;
            let index = place(address, &ranges).ok_or_else(|| {
                Failure::Usage(format!(
                    "no matching subnet for aux-address {address}: name one with --subnet"
                ))
            })?;
            let entry = ranges[index].entry("AuxiliaryAddresses").or_insert_with(|| json!({}));
            entry[name] = json!(address);
        }
        Ok(ranges.into_iter().map(Value::Object).collect())
    }
}

fn pairs(texts: &[String]) -> Value {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), json!(value))
    };
    Value::Object(texts.iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn body(line: &str) -> Result<Value, Failure> {
        Line::try_parse_from(line.split(' ')).unwrap().create.body()
    }

    #[test]
    fn what_is_said_of_a_subnet_goes_to_the_one_of_its_family() {
        let body = body(
            "create --subnet 10.1.0.0/24 --subnet fd00::/64 --gateway fd00::9 --gateway 10.1.0.9 --aux-address a=10.1.0.5 --ipv6 -o x=y net",
        )
        .unwrap();
        assert_eq!(
            body["IPAM"]["Config"],
            json!([
                {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9", "AuxiliaryAddresses": {"a": "10.1.0.5"}},
                {"Subnet": "fd00::/64", "Gateway": "fd00::9"}
            ])
        );
        assert_eq!(
            (&body["EnableIPv6"], &body["Options"]),
            (&json!(true), &json!({"x": "y"}))
        );
        assert_eq!(body.get("EnableIPv4"), None);
    }

    #[test]
    fn a_gateway_without_a_subnet_is_refused() {
        assert!(body("create --gateway 10.1.0.9 net").is_err());
        assert!(body("create --subnet fd00::/64 --ip-range 10.1.0.0/24 net").is_err());
    }
}
