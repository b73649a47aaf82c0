//! Of whom and by what: what flows and drops are chosen by.

use clap::Args;

/// Each may be said several times: one of its values has to fit, and all that are said have to be content.
#[derive(Args, Default)]
pub struct Ends {
    /// Only of this container, at either end
    #[arg(short, long)]
    container: Vec<String>,
    /// Only of containers with this label, as KEY or KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Only of containers on this network
    #[arg(short, long)]
    network: Vec<String>,
    /// Only from or to this address or prefix
    #[arg(short, long)]
    address: Vec<String>,
    /// Only from or to this port
    #[arg(short, long)]
    port: Vec<String>,
    /// Only of this protocol: tcp, udp, icmp, icmpv6, sctp, udplite, arp or a number
    #[arg(long)]
    protocol: Vec<String>,
}

impl Ends {
    /// As a query has them.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("container", &self.container),
            ("label", &self.label),
            ("network", &self.network),
            ("address", &self.address),
            ("port", &self.port),
            ("protocol", &self.protocol),
        ];
        all.into_iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())))
    }
}
