//! The developer's commands: `cargo xtask demo|test|fuzz|host|bench|kernel|images|dist`.
//!
//! `demo` and `test` are the two commands of the README; the others are their parts. What takes
//! long is kept in the cache (see [`cache`]) and reused, so that a second run is quick.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod cache;
mod command;
mod debian;
mod demo;
mod fuzz;
mod host;
mod images;
mod initramfs;
mod kernel;
mod packages;
mod programs;
mod step;
mod test;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "The developer's commands", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a real image in its own microVM: installs, builds, shows.
    Demo,
    Test(test::Arguments),
    Fuzz(fuzz::Arguments),
    Host(host::Arguments),
    Bench(bench::Arguments),
    Kernel(kernel::Arguments),
    /// Make the images that tests and demo run, and print where they are.
    Images,
    /// Build the product and print where it is: the directory's content goes to /usr.
    Dist,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test(arguments) => test::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Host(arguments) => host::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Kernel(arguments) => kernel::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Images => images::run(),
        Command::Dist => build::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error:#}");
        ExitCode::FAILURE
    })
}
