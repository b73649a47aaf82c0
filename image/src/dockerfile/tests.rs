//! The corpus: what is read, what is refused and on which line, what is left out.

use super::*;

fn names(text: &str) -> Vec<String> {
    let read = parse(text).unwrap();
    read.iter()
        .map(|one| format!("{}:{}:{}", one.line, one.name, one.rest))
        .collect()
}

#[test]
fn instructions_go_over_lines_and_comments() {
    let text = "\u{feff}# a comment\n\nfrom  a AS b \r\nRUN one && \\\n  # between\n\n  two \\  \n  three\nCMD [\"x\"]\nEXPOSE 80 \\\n";
    assert_eq!(
        names(text),
        [
            "3:FROM:a AS b",
            "4:RUN:one &&   two   three",
            "9:CMD:[\"x\"]",
            "10:EXPOSE:80"
        ]
    );
}

#[test]
fn the_escape_is_a_directive() {
    assert_eq!(
        names("# escape=`\nFROM a\nRUN dir c:\\\\ `\n x"),
        ["2:FROM:a", "3:RUN:dir c:\\\\  x"]
    );
    assert_eq!(
        names("# syntax=docker/dockerfile:1\n#escape = \\\nFROM a\\\nb"),
        ["3:FROM:ab"]
    );
    assert_eq!(names("# just a comment\n# escape=`\nFROM a `"), ["3:FROM:a `"]);
    assert!(parse("# escape=x\nFROM a").is_err() && parse("# escape=`\n# escape=`\nFROM a").is_err());
}

#[test]
fn heredocs_are_what_follows_up_to_their_word() {
    let text =
        "FROM a\nRUN <<EOF\necho $a\n# no comment\n\nEOF\nCOPY <<-\"A\" <<B /x/\n\ttext\n\tA\nmore\nB\nRUN echo done";
    let read = parse(text).unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(read[1].heredocs[0].content, "echo $a\n# no comment\n\n");
    assert!(read[1].heredocs[0].expands && !read[2].heredocs[0].expands);
    assert_eq!(read[2].heredocs[0].content, "text\n");
    assert_eq!(
        (read[2].heredocs[1].name.as_str(), read[2].heredocs[1].content.as_str()),
        ("B", "more\n")
    );
    assert_eq!(read[3].line, 12);
    assert_eq!(
        parse("FROM a\nRUN cat <<EOF").unwrap_err().to_string(),
        "dockerfile parse error line 2: unterminated heredoc"
    );
    assert!(parse("FROM a\nRUN echo 1 << 2").unwrap()[1].heredocs.is_empty());
    assert!(parse("FROM a\nRUN [\"<<EOF\"]").unwrap()[1].heredocs.is_empty());
}

#[test]
fn flags_stand_before_the_rest() {
    let copy = &parse("FROM a\nCOPY --from=b --chown=1:2   x y").unwrap()[1];
    assert_eq!(
        copy.flags,
        [("from".into(), "b".into()), ("chown".into(), "1:2".into())]
    );
    assert_eq!(copy.rest, "x y");
    assert_eq!(parse("FROM a\nCMD --x").unwrap()[1].rest, "--x");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, said) in [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        (
            "FROM a\n\nFOO bar",
            "dockerfile parse error line 3: unknown instruction: FOO",
        ),
        (
            "FROM a\nRUN",
            "dockerfile parse error line 2: RUN requires at least one argument",
        ),
        (
            "FROM",
            "dockerfile parse error line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a\nRUN --mount=type=bind x",
            "line 2: the --mount option requires BuildKit",
        ),
        ("FROM a\nCOPY --nope=1 a b", "line 2: Unknown flag: nope"),
        ("FROM a\nCOPY --from a b", "line 2: Missing a value on flag: from"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text:?}: {error}");
    }
}

#[test]
fn no_text_makes_the_reader_fall() {
    let mut state = 7_u64;
    let pieces = [
        "FROM a", "\n", "\\", "RUN ", "<<E", "E\n", "\"", "'", "$", "${", "#", " ", "\t", "é", "[\"", "--from=",
        "COPY ", "`", "=", "\r",
    ];
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        for one in parse(&text).into_iter().flatten() {
            let _ = (words(&one.rest), expand(&one.rest, &[]), name_values("ENV", &one.rest));
            let _ = change(&mut RunConfig::default(), &one.name, &one.rest, &[]);
        }
        let _ = Ignore::parse(&text).map(|ignore| ignore.leaves_out(&text));
    }
}

#[test]
fn patterns_leave_out_what_docker_leaves_out() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("*.md\n!README.md", &["a.md", "b.md"], &["README.md", "d/a.md", "a.mdx"]),
        ("**/*.log", &["a.log", "d/e/a.log"], &["a.log.1"]),
        ("/d\n!d/keep", &["d", "d/x"], &["d/keep", "d/keep/y", "e/d"]),
        ("d/**", &["d/x", "d/x/y"], &["e"]),
        ("a?c\n[x-z]1\n[^a]2", &["abc", "y1", "b2"], &["ac", "a1", "a2", "x/abc"]),
        ("# no pattern\n\n.\n/", &[], &["a", "# no pattern"]),
        (
            "**/node_modules",
            &["node_modules", "a/node_modules/b"],
            &["node_modules2"],
        ),
        ("*\n!src/**/*.rs", &["a", "src/x.c"], &["src/a.rs", "src/b/c.rs"]),
        ("./a/../b", &["b"], &["a"]),
        ("\\*", &["*"], &["a"]),
    ];
    for (text, out, kept) in cases {
        let ignore = Ignore::parse(text).unwrap();
        for path in *out {
            assert!(ignore.leaves_out(path), "{text:?} does not leave out {path}");
        }
        for path in *kept {
            assert!(!ignore.leaves_out(path), "{text:?} leaves out {path}");
        }
    }
}
