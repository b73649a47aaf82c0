//! `docs/api.md`, written from the router's table so that it cannot go stale.

use std::{fmt::Write, path::PathBuf};

use crate::{router, version};

/// Set to write the page instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

#[test]
fn the_page_of_the_api_is_true() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/api.md is stale: run `{UPDATE}=1 cargo test -p sluice-api`"
    );
}

fn page() -> String {
    let mut page = format!(
        "# API coverage\n\n\
         <!-- Written by a test from the router's table: `{UPDATE}=1 cargo test -p sluice-api`. -->\n\n\
         Sluice speaks the Docker Engine API, versions {} to {}, with and without `/v1.NN` before the path. What is not \
         offered yet answers 501 with a sentence that names the route; what Docker does not have either answers 404.\n",
        version::OLDEST,
        version::NEWEST
    );
    for (resource, lines) in router::table() {
        let offered = lines.iter().filter(|line| line.offered).count();
        write!(
            page,
            "\n## {resource} ({offered} of {})\n\n| | route | what it does |\n|---|---|---|\n",
            lines.len()
        )
        .unwrap();
        for line in lines {
            let mark = if line.offered { "yes" } else { "501" };
            writeln!(page, "| {mark} | `{} {}` | {} |", line.method, line.path, line.sentence).unwrap();
        }
    }
    page
}
