use super::*;

fn apply_to_nothing(changes: &[&str]) -> Result<RunConfig, ImageError> {
    let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
    apply(RunConfig::default(), &changes)
}

fn error(change: &str) -> String {
    apply_to_nothing(&[change]).unwrap_err().to_string()
}

#[test]
fn commands_are_lists_or_go_to_the_shell() {
    let config = apply_to_nothing(&[r#"CMD ["nginx", "-g", "daemon off;"]"#, "entrypoint echo hello"]).unwrap();
    assert_eq!(config.cmd.unwrap(), ["nginx", "-g", "daemon off;"]);
    assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "echo hello"]);
}

#[test]
fn variables_come_in_both_forms_and_see_those_before() {
    let config = apply_to_nothing(&[
        "ENV PATH /usr/bin:/bin",
        r#"ENV A=1 B="two words" C='$A' PATH=/opt:$PATH"#,
        "ENV D=${A}${NONE:-x}${A:+y} E=\\$A A=9",
    ])
    .unwrap();
    assert_eq!(
        config.env,
        ["PATH=/opt:/usr/bin:/bin", "A=9", "B=two words", "C=$A", "D=1xy", "E=$A"]
    );
}

#[test]
fn ports_volumes_labels_and_the_rest_find_their_place() {
    let config = apply_to_nothing(&[
        "EXPOSE 80 53/udp 8000-8001",
        r#"VOLUME ["/data", "/with space"]"#,
        "VOLUME /a /b",
        r#"LABEL org.example="a b" x=y"#,
        "WORKDIR /srv",
        "WORKDIR app/../www",
        "USER web:web",
        "STOPSIGNAL SIGQUIT",
        "ONBUILD RUN make",
    ])
    .unwrap();
    let ports: Vec<String> = config.exposed_ports.unwrap().into_keys().collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    let volumes: Vec<String> = config.volumes.unwrap().into_keys().collect();
    assert_eq!(volumes, ["/a", "/b", "/data", "/with space"]);
    assert_eq!(config.labels.unwrap()["org.example"], "a b");
    assert_eq!(
        (config.working_dir.as_str(), config.user.as_str()),
        ("/srv/www", "web:web")
    );
    assert_eq!(
        (config.stop_signal.as_str(), config.on_build),
        ("SIGQUIT", vec!["RUN make".to_owned()])
    );
}

#[test]
fn a_health_check_has_times_in_nanoseconds() {
    let config = apply_to_nothing(&["HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f localhost"]);
    let check = config.unwrap().healthcheck.unwrap();
    assert_eq!(
        (check.interval, check.timeout, check.retries),
        (90_000_000_000, 500_000_000, 3)
    );
    assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
}

#[test]
fn lines_continue_behind_a_backslash_and_comments_do_not_count() {
    let config = apply_to_nothing(&["# a comment\nENV A=1 \\\n  B=2\n\nUSER me"]).unwrap();
    assert_eq!(config.env, ["A=1", "B=2"]);
    assert_eq!(config.user, "me");
}

#[test]
fn what_is_not_a_change_is_refused() {
    assert_eq!(error("RUN make"), "run is not a valid change command");
    assert_eq!(error("JUMP high"), "dockerfile parse error: unknown instruction: JUMP");
    assert_eq!(error("ENV"), "ENV requires at least one argument");
    assert_eq!(error("ENV A"), "ENV must have two arguments");
    assert_eq!(error("EXPOSE eighty"), "invalid containerPort: eighty");
    assert_eq!(error("EXPOSE 80/icmp"), "invalid proto: icmp");
    assert_eq!(error("STOPSIGNAL SIGNONE"), "invalid signal: SIGNONE");
    assert_eq!(error("HEALTHCHECK --often=1s CMD x"), "unknown flag: often");
    for (text, said) in [
        (
            "ENV A=\"open",
            "failed to process \"\\\"open\": unexpected end of statement while looking for matching double-quote",
        ),
        (
            "ENV A='open",
            "failed to process \"'open\": unexpected end of statement while looking for matching single-quote",
        ),
        ("ENV A=${B", "failed to process \"${B\": syntax error: missing '}'"),
        ("ENV A=${}", "failed to process \"${}\": syntax error: bad substitution"),
        (
            "ENV A=${B:?c}",
            "failed to process \"${B:?c}\": unsupported modifier (:?) in substitution",
        ),
    ] {
        assert_eq!(error(text), said);
    }
}
