//! `sluice`: the daemon's own client. Docker's verbs in Docker's manner, and the questions only Sluice can answer.
//!
//! It decides nothing: every command is a request, or a few in the order a person would make them.

mod command;
mod credentials;
mod daemon;
mod failure;
mod keys;
mod listing;
mod measure;
mod output;
mod pcapng;
mod publish;
mod query;
mod session;
mod table;
mod template;
mod terminal;

use clap::{Parser, Subcommand};
use command::{
    archive, attach, build, builder, cleanup, cluster, copy, create, datapath, drops, events, exec, explain, exposure,
    files, flows, image, inspect, life, logs, monitor, network, policy, port, prune, ps, registry, run, start, stats,
    system, update, volume,
};
use daemon::{Address, Daemon};
use failure::Failure;

/// Containers on an eBPF network.
#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Sluice {
    /// Daemon to ask: unix://PATH or tcp://HOST:PORT [default: $SLUICE_HOST, $DOCKER_HOST or unix:///run/sluice/sluice.sock]
    #[arg(short = 'H', long)]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make and start a container
    Run(Box<run::Run>),
    /// Make a container
    Create(Box<create::Create>),
    /// Start containers
    Start(start::Start),
    /// Stop containers: their stop signal, then KILL
    Stop(life::Stop),
    /// Stop containers and start them again
    Restart(life::Restart),
    /// Send containers a signal
    Kill(life::Kill),
    /// Freeze containers
    Pause(life::Pause),
    /// Thaw containers
    Unpause(life::Unpause),
    /// Wait for the end of containers and print their exit codes
    Wait(life::Wait),
    /// Remove containers
    Rm(life::Rm),
    /// Connect to the streams of a container that runs
    Attach(attach::Attach),
    /// Change limits and restart policy of containers
    Update(update::Update),
    /// Remove all containers that do not run
    Prune(prune::Prune),
    /// Give a container another name
    Rename(life::Rename),
    /// List containers
    Ps(ps::Ps),
    /// Print the log of a container
    Logs(logs::Logs),
    /// Run a further process in a container
    Exec(exec::Exec),
    /// List the published ports of a container
    Port(port::Port),
    /// List the processes of a container; without one, show live what all carry and what of it dies
    Top(life::Top),
    /// Print what containers use, every second
    Stats(stats::Stats),
    /// Print all about containers, images or networks
    Inspect(inspect::Inspect),
    /// List images
    Images(image::Images),
    /// Give an image a further name
    Tag(image::Tag),
    /// Remove images
    Rmi(image::Rmi),
    /// Print the steps an image was made in
    History(image::History),
    /// Make an image of a tar of a root file system
    Import(archive::Import),
    /// Read images from an archive made by `docker save`
    Load(archive::Load),
    /// Copy files out of a container or into it
    Cp(copy::Copy),
    /// Print what a container changed in its files
    Diff(files::Diff),
    /// Write the file system of a container as a tar
    Export(files::Export),
    /// Make an image of a container
    Commit(files::Commit),
    /// Write images as an archive for `load`
    Save(files::Save),
    /// Build an image of a Dockerfile
    Build(Box<build::Build>),
    /// What builds leave behind
    #[command(subcommand)]
    Builder(builder::Builder),
    /// Bring an image from a registry
    Pull(registry::Pull),
    /// Send an image to a registry
    Push(registry::Push),
    /// Keep the credentials for a registry, if it takes them
    Login(registry::Login),
    /// Forget the credentials for a registry
    Logout(registry::Logout),
    /// Refused: registries of this kind have no search
    Search(registry::Search),
    /// Networks
    #[command(subcommand)]
    Network(network::Network),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Disk usage
    #[command(subcommand)]
    System(system::System),
    /// Print what happens
    Events(events::Events),
    /// Print the versions of client and daemon
    Version(system::Version),
    /// Print facts about the daemon
    Info(system::Info),
    /// Ask whether the daemon answers
    Ping(system::Ping),
    /// How the datapath is: tables, programs, troubles
    Status(datapath::Status),
    /// The hosts that share networks
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Who may speak to whom
    #[command(subcommand)]
    Policy(policy::Policy),
    /// List the connections in the flow table
    Flows(flows::Flows),
    /// List dropped packets by reason
    Drops(drops::Drops),
    /// Say what would become of a packet, and why, by the real programs and without sending one
    Explain(explain::Explain),
    /// Show drops as they happen, and conversations as they open and close
    Monitor(Box<monitor::Monitor>),
    /// List what of this host's containers is reached from where, and what the host's firewall believes of it
    Exposure(exposure::Exposure),
    /// Remove everything a stopped daemon left in the kernel
    Cleanup(cleanup::Cleanup),
}

fn main() {
    let arguments = Sluice::parse();
    let code = match answer(arguments) {
        Ok(()) => 0,
        Err(failure) => {
            if !matches!(&failure, Failure::Code(_)) {
                match &failure {
                    Failure::BeforeStart(why) if matches!(**why, Failure::Code(_)) => {}
                    Failure::BeforeStart(why) => {
                        eprintln!("sluice: {why}\n\nRun 'sluice run --help' for more information")
                    }
                    other => eprintln!("{other}"),
                }
            }
            failure.code()
        }
    };
    // a read of standard input may still be waiting on its thread; nothing else is
    std::process::exit(code)
}

fn answer(arguments: Sluice) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failure::Usage(format!("cannot start: {why}")))?;
    let address = Address::choose(arguments.host.as_deref())?;
    let daemon = Daemon::at(address);
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Run(run) => run.answer(&daemon).await,
            Command::Create(create) => create.answer(&daemon).await,
            Command::Start(start) => start.answer(&daemon).await,
            Command::Stop(stop) => stop.answer(&daemon).await,
            Command::Restart(restart) => restart.answer(&daemon).await,
            Command::Kill(kill) => kill.answer(&daemon).await,
            Command::Pause(pause) => pause.answer(&daemon).await,
            Command::Unpause(unpause) => unpause.answer(&daemon).await,
            Command::Wait(wait) => wait.answer(&daemon).await,
            Command::Rm(rm) => rm.answer(&daemon).await,
            Command::Attach(attach) => attach.answer(&daemon).await,
            Command::Update(update) => update.answer(&daemon).await,
            Command::Prune(prune) => prune.answer(&daemon).await,
            Command::Stats(stats) => stats.answer(&daemon).await,
            Command::Rename(rename) => rename.answer(&daemon).await,
            Command::Ps(ps) => ps.answer(&daemon).await,
            Command::Logs(logs) => logs.answer(&daemon).await,
            Command::Exec(exec) => exec.answer(&daemon).await,
            Command::Port(port) => port.answer(&daemon).await,
            Command::Top(top) => top.answer(&daemon).await,
            Command::Inspect(inspect) => inspect.answer(&daemon).await,
            Command::Images(images) => images.answer(&daemon).await,
            Command::Tag(tag) => tag.answer(&daemon).await,
            Command::Rmi(rmi) => rmi.answer(&daemon).await,
            Command::History(history) => history.answer(&daemon).await,
            Command::Import(import) => import.answer(&daemon).await,
            Command::Load(load) => load.answer(&daemon).await,
            Command::Build(build) => build.answer(&daemon).await,
            Command::Builder(builder) => builder.answer(&daemon).await,
            Command::Pull(pull) => pull.answer(&daemon).await,
            Command::Push(push) => push.answer(&daemon).await,
            Command::Login(login) => login.answer(&daemon).await,
            Command::Logout(logout) => logout.answer(),
            Command::Search(search) => search.answer(&daemon).await,
            Command::Network(network) => network.answer(&daemon).await,
            Command::Cp(copy) => copy.answer(&daemon).await,
            Command::Diff(diff) => diff.answer(&daemon).await,
            Command::Export(export) => export.answer(&daemon).await,
            Command::Commit(commit) => commit.answer(&daemon).await,
            Command::Save(save) => save.answer(&daemon).await,
            Command::Volume(volume) => volume.answer(&daemon).await,
            Command::System(system) => system.answer(&daemon).await,
            Command::Events(events) => events.answer(&daemon).await,
            Command::Version(version) => version.answer(&daemon).await,
            Command::Info(info) => info.answer(&daemon).await,
            Command::Ping(ping) => ping.answer(&daemon).await,
            Command::Status(status) => status.answer(&daemon).await,
            Command::Cluster(cluster) => cluster.answer(&daemon).await,
            Command::Policy(policy) => policy.answer(&daemon).await,
            Command::Flows(flows) => flows.answer(&daemon).await,
            Command::Drops(drops) => drops.answer(&daemon).await,
            Command::Explain(explain) => explain.answer(&daemon).await,
            Command::Monitor(monitor) => monitor.answer(&daemon).await,
            Command::Exposure(exposure) => exposure.answer(&daemon).await,
            Command::Cleanup(cleanup) => cleanup.answer(arguments.host.is_some(), &daemon).await,
        }
    });
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Sluice::command().debug_assert();
    }
}
