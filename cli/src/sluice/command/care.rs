//! How a container is looked after: its health check, its log.

use std::collections::HashMap;

use bollard_stubs::models::{HealthConfig, HostConfigLogConfig};
use clap::Args;
use jiff::SignedDuration;

use crate::failure::Failure;

/// Health check and log, as the options describe them.
#[derive(Args, Debug, Default)]
pub struct Care {
    /// A command that finds out whether it is healthy
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_interval: Option<i64>,
    /// So many failures in a row make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<i64>,
    /// Time between two checks while it starts
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_interval: Option<i64>,
    /// Time to start, in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_period: Option<i64>,
    /// How long one check may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_timeout: Option<i64>,
    /// No check, not even the image's
    #[arg(long)]
    no_healthcheck: bool,
    /// Who keeps its log: json-file, local or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// How, as max-size=10m
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

impl Care {
    /// None: as the image has it.
    pub fn health(&self) -> Result<Option<HealthConfig>, Failure> {
        let times = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
            self.health_retries,
        ];
        let is_described = self.health_cmd.is_some() || times.iter().any(Option::is_some);
        if self.no_healthcheck {
            return match is_described {
                true => Err(Failure::Usage(
                    "--no-healthcheck conflicts with --health-* options".into(),
                )),
                false => Ok(Some(HealthConfig {
                    test: Some(vec!["NONE".into()]),
                    ..HealthConfig::default()
                })),
            };
        }
        Ok(is_described.then(|| HealthConfig {
            test: self
                .health_cmd
                .as_ref()
                .map(|command| vec!["CMD-SHELL".into(), command.clone()]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        }))
    }

    /// None: as the daemon does it.
    pub fn log(&self) -> Result<Option<HostConfigLogConfig>, Failure> {
        if self.log_driver.as_deref() == Some("none") && !self.log_opt.is_empty() {
            return Err(Failure::Usage("invalid logging opts for driver none".into()));
        }
        let pair = |text: &String| {
            let pair = text
                .split_once('=')
                .ok_or_else(|| Failure::Usage(format!("bad format for log-opt: {text}")))?;
            Ok((pair.0.to_owned(), pair.1.to_owned()))
        };
        let options = self
            .log_opt
            .iter()
            .map(pair)
            .collect::<Result<HashMap<_, _>, Failure>>()?;
        Ok(
            (self.log_driver.is_some() || !options.is_empty()).then(|| HostConfigLogConfig {
                typ: self.log_driver.clone(),
                config: Some(options),
            }),
        )
    }
}

/// `1m30s`, in nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    let wanted = || format!("invalid duration {text:?}");
    let duration: SignedDuration = text.parse().map_err(|_| wanted())?;
    i64::try_from(duration.as_nanos())
        .ok()
        .filter(|span| *span >= 0)
        .ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("500ms"), Ok(500_000_000));
        assert!(duration("soon").is_err() && duration("-1s").is_err());
    }

    #[test]
    fn no_check_is_not_a_check() {
        let care = Care {
            no_healthcheck: true,
            ..Care::default()
        };
        assert_eq!(care.health().unwrap().unwrap().test.unwrap(), ["NONE"]);
        assert!(Care::default().health().unwrap().is_none());
        let both = Care {
            health_retries: Some(1),
            ..care
        };
        assert!(both.health().is_err());
    }
}
