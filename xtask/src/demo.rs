//! `cargo xtask demo`: a web server in a container answers on a published port, and the ways to see how.
//!
//! Everything happens on a host and a LAN made of namespaces: the network of this machine is not touched, and nothing is left behind.

use std::env;
use std::io::{self, IsTerminal};
use std::panic::{self, AssertUnwindSafe};

use clap::Args;
use lab::{Daemon, HOST, Host, LAN, Lab, Ran};
use nix::sys::signal::{SigSet, Signal};

use crate::build;
use crate::setup::{self, Group};
use crate::step::{Doing, Failure, Outcome, say};

/// Where the lab looks for our binaries, beside the directory of this program.
const BINARIES: &str = "SLUICE_BINARIES";

/// Build Sluice and watch a web server in a container answer on a published port.
#[derive(Args)]
pub struct Demo {
    /// Leave it running, and say how to talk to it.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Builds, shows, tidies up.
    pub fn run(&self) -> Outcome {
        // The one that sudo started finds all built.
        let Some(_) = env::var_os(BINARIES) else {
            setup::provide(&[Group::Build, Group::Test])?;
            build::ebpf()?;
            let binaries = build::binaries(false)?;
            return if setup::is_root() {
                self.perform()
            } else {
                setup::again_as_root(&[(BINARIES, &binaries)])
            };
        };
        self.perform()
    }

    fn perform(&self) -> Outcome {
        // A Ctrl-C is heeded at the end, so that nothing is left behind. (The lab lets the programs in its hosts hear it.)
        let mut ends = SigSet::empty();
        ends.add(Signal::SIGINT);
        ends.add(Signal::SIGTERM);
        ends.thread_block().doing(|| "hold back Ctrl-C".into())?;
        // The lab is made for tests: it tells failures by panicking.
        panic::set_hook(Box::new(|_| {}));
        let shown = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut stage = Stage::prepare();
            stage.show();
            if self.keep {
                stage.explain();
                let _ = ends.wait();
            }
            stage.leave();
        }));
        let _ = panic::take_hook();
        lab::forget_images();
        shown.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Failure::new(
                text.or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("the demo failed"),
            )
        })
    }
}

/// The host, its LAN and its daemon.
struct Stage {
    daemon: Daemon,
    lab: Lab,
}

impl Stage {
    fn prepare() -> Self {
        let lab = Lab::new();
        say(format_args!(
            "a host, {HOST}, and a client in its LAN, {LAN}: namespaces, made for this demo"
        ));
        let daemon = Daemon::start_instance(&lab.host, "demo", "");
        say("sluiced runs on the host; an image is made of Debian's nginx and busybox");
        daemon.docker().import_web();
        Self { daemon, lab }
    }

    fn show(&mut self) {
        self.docker("run -d --name web -p 8080:80 web");
        self.daemon.docker().wait_for_web("web");
        self.docker("run -d --name other web");
        let (host, client) = (&self.lab.host, &self.lab.lan);

        heading("The page, from the LAN, from the host, from another container");
        show("client", client, &format!("curl -sS http://{HOST}:8080/"));
        show("host", host, &format!("curl -sS http://{HOST}:8080/"));
        show("host", host, "curl -sS http://127.0.0.1:8080/");
        self.docker(&format!("exec other wget -q -O - http://{HOST}:8080/"));

        heading("The server sees who they are");
        self.docker("logs web");

        heading("Out to the LAN: with the host's address");
        self.docker(&format!("exec other ping -c 1 {LAN}"));

        heading("What the datapath knows");
        self.sluice("flows");
        self.docker("exec other ping -c 1 -W 1 172.17.200.200");
        self.sluice("drops");
        self.sluice("status");

        heading("What the rest of the system has to do with it: nothing");
        for tool in [
            "iptables-save",
            "nft list ruleset",
            "conntrack -L 2>/dev/null",
            "bridge link",
        ] {
            show("host", host, tool);
        }

        heading("The daemon may die");
        prompt("host", "kill -9 $(pidof sluiced)");
        self.daemon.kill();
        show("client", &self.lab.lan, &format!("curl -sS http://{HOST}:8080/"));
        self.daemon.boot();
        self.docker("ps");
    }

    /// How to talk to what was left running.
    fn explain(&self) {
        heading("It runs on, until you press Ctrl-C");
        let socket = format!("/proc/{}/root{}", self.daemon.pid(), self.daemon.socket().display());
        println!("  as a docker user     export DOCKER_HOST=unix://{socket}; docker ps");
        println!("  on the host          {}", self.lab.host.door());
        println!("  as the LAN's client  {}", self.lab.lan.door());
    }

    fn leave(&mut self) {
        heading("Nothing is left behind");
        self.docker("rm -f web other");
        self.daemon.stop();
        prompt("host", "sluiced --cleanup");
        reply(&self.daemon.clean_up());
        show("host", &self.lab.host, "ip -br link");
        println!();
    }

    /// Types a line of docker and shows what it says.
    fn docker(&self, line: &str) {
        prompt("host", &format!("docker {line}"));
        reply(&self.daemon.docker().run(line));
    }

    /// Asks Sluice's own CLI.
    fn sluice(&self, line: &str) {
        prompt("host", &format!("sluice {line}"));
        reply(&self.daemon.sluice(line));
    }
}

/// Types a line of shell and shows what it says.
fn show(who: &str, host: &Host, line: &str) {
    prompt(who, line);
    reply(&host.shell(line));
}

fn heading(text: &str) {
    println!("\n{}", painted("1", text));
}

fn prompt(who: &str, line: &str) {
    println!("{} {line}", painted("32", &format!("{who}$")));
}

fn reply(ran: &Ran) {
    let text = format!("{}{}", ran.stdout, ran.stderr);
    if text.trim().is_empty() {
        println!(
            "  {}",
            painted("2", if ran.is_ok() { "(nothing)" } else { "(it failed)" })
        );
    }
    for line in text.lines() {
        println!("  {line}");
    }
}

/// In a colour or weight, where that can be seen.
fn painted(style: &str, text: &str) -> String {
    if io::stdout().is_terminal() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
