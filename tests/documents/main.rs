//! Pages of `docs/` that are written by a machine: the test fails when one differs, and writes it when `UPDATE_DOCS` is set.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed, and says where")]

mod flows;
mod pitfalls;

use std::fs;
use std::path::PathBuf;

use sluice_datapath_common::drop::DropReason;
use sluice_datapath_common::for_each_map;

#[test]
fn every_reason_for_a_drop_stands_in_the_page_on_drops() {
    let mut page = String::from(
        "# Why packets die\n\n`sluice drops` counts every packet that the datapath does not let go, by these reasons. A number, once given, keeps its \
         meaning.\n\n\
         `sluice drops --follow` tells of each packet as it dies, with what can be read of its headers; `--json` (and `GET /sluice/v1/drops?follow=1`) as a line \
         of JSON. Of one reason 64 are told per CPU and second, the counters count all. While nobody follows, nothing is written. The kinds of lines, to which \
         others may be added, as fields may be:\n\n\
         * `drop`: `time` (RFC 3339), `reason`, `sentence`, `number`, `direction`, `container`, `container_id`, `network`, `device`, `ether_type`, `protocol`, `source`, \
         `source_name`, `source_port`, `destination`, `destination_name`, `destination_port`, `icmp_type`, `icmp_code`, `icmp_id`, `length` (bytes). What is not \
         there or could not be read is empty or `null`.\n\
         * `untold`: at most one per reason and second: `reason`, `number`, and how many drops were not told, `too_many` of them in a second, or `lost` because those \
         before had not been read.\n\
         * `missed`: this follower was too slow for so many `lines`.\n\n\
         What was not told is in `sluice drops` and `sluice status` too (`GET /sluice/v1/drops/telling`). `sluice monitor` (docs/monitor.md) shows the same with filters, \
         labels, rules of documents, packets for Wireshark, and conversations.\n\n\
         This page is written by a test (`UPDATE_DOCS=1 cargo test -p sluice-tests --test documents`).\n\n| | reason | what it means |\n|---|---|---|\n",
    );
    for reason in DropReason::ALL {
        page.push_str(&format!(
            "| {} | `{}` | {} |\n",
            *reason as u8,
            reason.word(),
            reason.sentence()
        ));
    }
    check("drops.md", &page);
}

macro_rules! rows {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal, $sentence:literal;)+) => {
        &[$((stringify!($name), stringify!($kind), stringify!($key), stringify!($value), stringify!($capacity), $sentence)),+]
    };
}

#[test]
fn every_table_stands_in_the_page_on_maps() {
    let rows: &[(&str, &str, &str, &str, &str, &str)] = for_each_map!(rows);
    let mut page = String::from(
        "# The tables in the kernel\n\nPinned under `/sys/fs/bpf/sluice/<instance>`; all that a packet needs is in them. The kernel shows the first 15 characters of a \
         name. The capacity is the default.\n\nThis page is written by a test (`UPDATE_DOCS=1 cargo test -p sluice-tests --test documents`).\n\n\
         | table | kind | key → value | capacity | what it holds |\n|---|---|---|---|---|\n",
    );
    for (name, kind, key, value, capacity, sentence) in rows {
        let [key, value] = [key, value].map(|name| name.replace(" < ", "<").replace(" >", ">"));
        let capacity = capacity.replace('_', "\u{202f}");
        page.push_str(&format!(
            "| `{name}` | {kind} | `{key}` → `{value}` | {capacity} | {sentence} |\n"
        ));
    }
    check("maps.md", &page);
}

fn check(name: &str, page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == page,
        "docs/{name} is not what the code says; UPDATE_DOCS=1 writes it anew"
    );
}
