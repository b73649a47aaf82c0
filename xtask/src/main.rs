//! `cargo xtask COMMAND`: everything that is not `cargo build`.
//!
//! A file per command. Each does first what the ones before it do, as far as it is needed: `test` sets up and builds by itself.

mod bench;
mod build;
mod demo;
mod lint;
mod repository;
mod setup;
mod step;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, test, show and measure Sluice.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
    Build(build::Build),
    Lint(lint::Lint),
    Test(test::Test),
    Demo(demo::Demo),
    Bench(bench::Bench),
    #[command(hide = true)]
    Exchange(bench::Exchange),
    #[command(hide = true)]
    Ask(bench::Ask),
    Vm(vm::Run),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup(setup) => setup.run(),
        Command::Build(build) => build.run(),
        Command::Lint(lint) => lint.run(),
        Command::Demo(demo) => demo.run(),
        Command::Bench(bench) => bench.run(),
        Command::Exchange(exchange) => exchange.run(),
        Command::Ask(ask) => ask.run(),
        Command::Test(test) => return test.run(),
        Command::Vm(vm) => vm.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
