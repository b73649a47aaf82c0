//! What a container gets from its image: Docker's rules of who wins.

use oci_spec::image::ImageConfiguration;
use sluice_image::Extras;
use sluice_model::{ContainerConfig, health::Healthcheck};

use crate::EngineError;

/// The wish, completed by the image. The user's word stands; the image fills the gaps.
pub(crate) fn merge(
    mut wish: ContainerConfig,
    image: &ImageConfiguration,
    extras: &Extras,
) -> Result<ContainerConfig, EngineError> {
    if let Some(check) = &extras.healthcheck {
        merge_healthcheck(wish.healthcheck.get_or_insert_default(), check);
    }
    if wish.shell.is_empty() {
        wish.shell.clone_from(&extras.shell);
    }
    if let Some(image) = image.config() {
        if wish.user.is_empty() {
            wish.user = image.user().clone().unwrap_or_default();
        }
        merge_env(&mut wish.env, image.env().as_deref().unwrap_or_default());
        for (label, value) in image.labels().iter().flatten() {
            wish.labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        for port in image.exposed_ports().iter().flatten() {
            // an image may say anything; what is no port is left out rather than making the image useless
            if let Ok(port) = port.parse()
                && !wish.exposed_ports.contains(&port)
            {
                wish.exposed_ports.push(port);
            }
        }
        for volume in image.volumes().iter().flatten() {
            if !wish.volumes.contains(volume) {
                wish.volumes.push(volume.clone());
            }
        }
        if wish.working_dir.is_empty() {
            wish.working_dir = image.working_dir().clone().unwrap_or_default();
        }
        if wish.stop_signal.is_none() {
            wish.stop_signal = image.stop_signal().clone().filter(|signal| !signal.is_empty());
        }
        // a new entrypoint makes the image's arguments meaningless
        if wish.entrypoint.is_none() {
            if wish.cmd.is_empty() {
                wish.cmd = image.cmd().clone().unwrap_or_default();
            }
            wish.entrypoint = image.entrypoint().clone().filter(|entrypoint| !entrypoint.is_empty());
        }
    }
    // `--entrypoint ""` comes as one empty word: no entrypoint, not even the image's
    if wish
        .entrypoint
        .as_ref()
        .is_some_and(|words| words.is_empty() || (words.len() == 1 && words[0].is_empty()))
    {
        wish.entrypoint = None;
    }
    if wish.entrypoint.is_none() && wish.cmd.is_empty() {
        return Err(EngineError::invalid("no command specified"));
    }
    wish.exposed_ports.sort_unstable();
    Ok(wish)
}

/// Each thing that the user did not say is as the image says.
fn merge_healthcheck(wish: &mut Healthcheck, image: &sluice_image::Healthcheck) {
    if wish.test.is_empty() {
        wish.test.clone_from(&image.test);
    }
    for (wish, image) in [
        (&mut wish.interval, image.interval),
        (&mut wish.timeout, image.timeout),
        (&mut wish.start_period, image.start_period),
        (&mut wish.start_interval, image.start_interval),
        (&mut wish.retries, image.retries),
    ] {
        if *wish == 0 {
            *wish = image;
        }
    }
}

/// The image's variables that the user did not set, after the user's own.
fn merge_env(wish: &mut Vec<String>, image: &[String]) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let set: Vec<String> = wish.iter().map(|variable| name(variable)).collect();
    wish.extend(image.iter().filter(|variable| !set.contains(&name(variable))).cloned());
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image() -> ImageConfiguration {
        let config = ConfigBuilder::default()
            .user("app")
            .env(words(&["PATH=/bin", "LANG=C"]))
            .entrypoint(words(&["/entry"]))
            .cmd(words(&["serve"]))
            .working_dir("/srv")
            .exposed_ports(words(&["80/tcp", "nonsense"]))
            .labels(std::collections::HashMap::from([("a".to_owned(), "image".to_owned())]))
            .stop_signal("SIGQUIT")
            .build()
            .unwrap();
        ImageConfigurationBuilder::default().config(config).build().unwrap()
    }

    #[test]
    fn the_image_fills_what_the_user_left_open() {
        let merged = merge(ContainerConfig::default(), &image(), &Extras::default()).unwrap();
        assert_eq!(merged.entrypoint, Some(words(&["/entry"])));
        assert_eq!(merged.cmd, words(&["serve"]));
        assert_eq!((merged.user.as_str(), merged.working_dir.as_str()), ("app", "/srv"));
        assert_eq!(merged.env, words(&["PATH=/bin", "LANG=C"]));
        assert_eq!(merged.exposed_ports, ["80/tcp".parse().unwrap()]);
        assert_eq!(merged.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn the_users_word_stands() {
        let wish = ContainerConfig {
            user: "0".into(),
            env: words(&["LANG=de", "X"]),
            cmd: words(&["other"]),
            labels: [("a".to_owned(), "user".to_owned())].into(),
            ..Default::default()
        };
        let merged = merge(wish, &image(), &Extras::default()).unwrap();
        assert_eq!(merged.user, "0");
        assert_eq!(merged.env, words(&["LANG=de", "X", "PATH=/bin"]));
        assert_eq!(
            (merged.entrypoint, merged.cmd),
            (Some(words(&["/entry"])), words(&["other"]))
        );
        assert_eq!(merged.labels["a"], "user");
    }

    #[test]
    fn a_users_entrypoint_clears_the_images_command() {
        let wish = ContainerConfig {
            entrypoint: Some(words(&["sh"])),
            ..Default::default()
        };
        let merged = merge(wish, &image(), &Extras::default()).unwrap();
        assert_eq!((merged.entrypoint, merged.cmd), (Some(words(&["sh"])), vec![]));
    }

    #[test]
    fn an_empty_entrypoint_takes_the_images_away() {
        let wish = ContainerConfig {
            entrypoint: Some(words(&[""])),
            cmd: words(&["ls"]),
            ..Default::default()
        };
        let merged = merge(wish, &image(), &Extras::default()).unwrap();
        assert_eq!((merged.entrypoint, merged.cmd), (None, words(&["ls"])));
        let wish = ContainerConfig {
            entrypoint: Some(words(&[""])),
            ..Default::default()
        };
        assert_eq!(
            merge(wish, &image(), &Extras::default()).unwrap_err().message,
            "no command specified"
        );
    }

    #[test]
    fn an_image_without_a_command_needs_one() {
        let image = ImageConfigurationBuilder::default().build().unwrap();
        assert_eq!(
            merge(ContainerConfig::default(), &image, &Extras::default())
                .unwrap_err()
                .message,
            "no command specified"
        );
    }

    #[test]
    fn a_health_check_takes_from_the_image_what_the_user_left_open() {
        let extras = Extras {
            healthcheck: Some(sluice_image::Healthcheck {
                test: words(&["CMD", "probe"]),
                interval: 7,
                retries: 2,
                ..Default::default()
            }),
            shell: words(&["/bin/ash", "-c"]),
            ..Default::default()
        };
        let wish = ContainerConfig {
            cmd: words(&["x"]),
            healthcheck: Some(Healthcheck {
                interval: 9,
                ..Default::default()
            }),
            ..Default::default()
        };
        let merged = merge(wish, &image(), &extras).unwrap();
        let check = merged.healthcheck.unwrap();
        assert_eq!(
            (check.test, check.interval, check.retries),
            (words(&["CMD", "probe"]), 9, 2)
        );
        assert_eq!(merged.shell, words(&["/bin/ash", "-c"]));
    }
}
