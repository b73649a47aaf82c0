//! Lists containers, with Docker's filters.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use sluice_image::Image;
use sluice_model::container::Phase;

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{held::Held, inspect::ContainerView},
    filter::fits,
};

/// Which containers `list` shows; Docker's filters (each key's values are alternatives).
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Also those that do not run.
    pub all: bool,
    /// Only so many, newest first; 0: all.
    pub limit: usize,
    /// Compute sizes.
    pub size: bool,
    /// `id`, `name`, `label`, `status`, `exited`, `ancestor`, `network`, `publish`, `expose`, `before`, `since`, `volume`, `health`, `is-task`,
    /// `isolation`.
    pub filters: Vec<(String, Vec<String>)>,
}

/// Filters Docker knows.
const KNOWN: [&str; 15] = [
    "id",
    "name",
    "label",
    "status",
    "exited",
    "ancestor",
    "network",
    "publish",
    "expose",
    "before",
    "since",
    "volume",
    "health",
    "is-task",
    "isolation",
];

impl Engine {
    /// Containers, newest first.
    pub async fn list_containers(&self, filter: &ListFilter) -> Result<Vec<ContainerView>, EngineError> {
        let criteria = self.criteria(filter).await?;
        let images = self.images_by_id().await?;
        let mut all: Vec<Arc<Held>> = self.containers.all();
        all.sort_by_key(|held| std::cmp::Reverse(held.look(|container| container.created)));
        let mut chosen = Vec::new();
        for held in all {
            if filter.limit > 0 && chosen.len() == filter.limit {
                break;
            }
            let mut view = self.view(&held);
            if !criteria.hold(&view) {
                continue;
            }
            let image = images.get(&view.container.image_id);
            if !image.is_some_and(|image| names(&image.0, &view.container.config.image, &view.container.image_id)) {
                view.image_name.clone_from(&view.container.image_id);
            }
            if filter.size {
                view.size = Some(self.sizes(&held, image.map_or(0, |image| image.1)).await?);
            }
            chosen.push(view);
        }
        Ok(chosen)
    }

    /// Tags and size of each image.
    async fn images_by_id(&self) -> Result<HashMap<String, (Vec<String>, u64)>, EngineError> {
        let images = self.images.clone();
        blocking(move || {
            Ok(images
                .list()?
                .into_iter()
                .map(|image| (image.id, (image.tags, image.size)))
                .collect())
        })
        .await
    }

    async fn criteria(&self, filter: &ListFilter) -> Result<Criteria, EngineError> {
        let mut criteria = Criteria::default();
        for (key, values) in &filter.filters {
            if !KNOWN.contains(&key.as_str()) {
                return Err(EngineError::invalid(format!("invalid filter '{key}'")));
            }
            for value in values {
                check(key, value)?;
            }
            if !values.is_empty() {
                criteria.filters.push((key.clone(), values.clone()));
            }
        }
        let has = |key: &str| criteria.filters.iter().any(|(known, _)| known == key);
        // who asks for a state or a number of the newest means the ended ones too
        criteria.all =
            filter.all || filter.limit > 0 || has("status") || has("exited") || has("before") || has("since");
        for (key, values) in &criteria.filters {
            match key.as_str() {
                "before" | "since" => {
                    for value in values {
                        let created = self.containers.find(value)?.look(|container| container.created);
                        if key == "before" {
                            criteria.before = Some(created)
                        } else {
                            criteria.since = Some(created)
                        }
                    }
                }
                "ancestor" => {
                    for value in values {
                        // what is no image has no descendants
                        if let Ok(image) = self.find_image(value).await {
                            let all = self.list_images().await?;
                            let descendants = all.into_iter().filter(|other| descends(other, &image));
                            criteria.ancestors.extend(descendants.map(|descendant| descendant.id));
                            criteria.ancestors.push(image.id);
                        }
                    }
                }
                "network" => {
                    criteria.networks.extend(
                        values
                            .iter()
                            .filter_map(|name| self.networks.find(name).ok())
                            .map(|net| net.name),
                    );
                }
                _ => {}
            }
        }
        Ok(criteria)
    }
}

/// Was an image made of the other? Its layers and its steps begin with all of the other's, and go on.
fn descends(image: &Image, ancestor: &Image) -> bool {
    let steps = |image: &Image| image.config.history().clone().unwrap_or_default();
    let (own, others) = (steps(image), steps(ancestor));
    own.len() > others.len() && own.starts_with(&others) && image.layers.starts_with(&ancestor.layers)
}

/// Does the user's name of the image still mean it?
fn names(tags: &[String], asked: &str, id: &str) -> bool {
    let tagged = |tag: &String| {
        tag == asked || tag.strip_suffix(":latest") == Some(asked) || tag.ends_with(&format!("/{asked}"))
    };
    let by_id = id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(asked)) || id == asked;
    by_id || tags.iter().any(tagged) || asked.ends_with(tags.first().map_or("\0", String::as_str))
}

fn check(key: &str, value: &str) -> Result<(), EngineError> {
    let invalid = || EngineError::invalid(format!("invalid filter '{key}={value}'"));
    match key {
        "status" => {
            const STATES: [&str; 7] = [
                "created",
                "restarting",
                "running",
                "removing",
                "paused",
                "exited",
                "dead",
            ];
            if STATES.contains(&value) {
                Ok(())
            } else {
                Err(invalid())
            }
        }
        "exited" => value.parse::<i32>().map(drop).map_err(|_| invalid()),
        "publish" | "expose" => ports(value).map(drop).ok_or_else(invalid),
        "health" if !matches!(value, "none" | "starting" | "healthy" | "unhealthy") => Err(invalid()),
        _ => Ok(()),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`: first, last, protocol.
fn ports(value: &str) -> Option<(u16, u16, String)> {
    let (range, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some((first.parse().ok()?, last.parse().ok()?, protocol.to_owned()))
}

#[derive(Default)]
struct Criteria {
    all: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    ancestors: Vec<String>,
    networks: Vec<String>,
    filters: Vec<(String, Vec<String>)>,
}

impl Criteria {
    fn hold(&self, view: &ContainerView) -> bool {
        let container = &view.container;
        (self.all || container.state.is_up())
            && self.before.is_none_or(|before| container.created < before)
            && self.since.is_none_or(|since| container.created > since)
            && self.has_port(view)
            && self.filters.iter().all(|(key, values)| match key.as_str() {
                // of labels all are wanted, as in Docker
                "label" => values.iter().all(|value| self.one(key, value, view)),
                "publish" | "expose" => true,
                _ => values.iter().any(|value| self.one(key, value, view)),
            })
    }

    /// Published and exposed ports are alternatives, and only what runs has any, as in Docker.
    fn has_port(&self, view: &ContainerView) -> bool {
        let mut wanted = self
            .filters
            .iter()
            .filter(|(key, _)| matches!(key.as_str(), "publish" | "expose"))
            .flat_map(|(key, values)| values.iter().map(move |value| (key.as_str(), value.as_str())))
            .peekable();
        wanted.peek().is_none() || wanted.any(|(key, value)| self.one(key, value, view))
    }

    fn one(&self, key: &str, value: &str, view: &ContainerView) -> bool {
        let container = &view.container;
        match key {
            "id" => fits(value, container.id.as_str()),
            // a name may be written with the slash it has in Docker's documents
            "name" => fits(value, &container.name) || fits(value, &format!("/{}", container.name)),
            "label" => match value.split_once('=') {
                Some((label, wanted)) => container.config.labels.get(label).is_some_and(|value| value == wanted),
                None => container.config.labels.contains_key(value),
            },
            "status" => container.state.phase.as_str() == value,
            "exited" => {
                container.state.phase == Phase::Exited
                    && value.parse::<i32>().is_ok_and(|code| code == container.state.exit_code)
            }
            "ancestor" => self.ancestors.contains(&container.image_id),
            "network" => {
                let by_endpoint = |name: &String| view.endpoints.iter().any(|endpoint| endpoint.network_name == *name);
                let by_wish = |name: &String| container.network_names().contains(name);
                self.networks.iter().any(|name| by_endpoint(name) || by_wish(name))
            }
            "publish" => ports(value).is_some_and(|(first, last, protocol)| {
                view.ports.iter().any(|port| {
                    (first..=last).contains(&port.host_port) && port.container.protocol.as_str() == protocol
                })
            }),
            "expose" => ports(value).is_some_and(|(first, last, protocol)| {
                let published = view.ports.iter().map(|port| &port.container);
                let exposed = container.config.exposed_ports.iter().chain(published);
                container.state.is_alive()
                    && !view.endpoints.is_empty()
                    && exposed
                        .into_iter()
                        .any(|port| (first..=last).contains(&port.port) && port.protocol.as_str() == protocol)
            }),
            "volume" => container
                .mounts
                .iter()
                .any(|mount| mount.source == value || mount.target == value),
            "health" => view.health.as_ref().map_or("none", |health| health.status.as_str()) == value,
            "is-task" => matches!(value, "false" | "0"),
            // two are spans, checked above; and there is one kind of isolation
            "before" | "since" | "isolation" => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::{Id, container::EndpointView};

    use super::*;
    use crate::container::held::tests::record;

    fn view() -> ContainerView {
        let mut container = record("web", 0xab);
        container.state.phase = Phase::Running;
        container.config.labels = [("tier".to_owned(), "front".to_owned())].into();
        container.config.exposed_ports = vec!["80/tcp".parse().unwrap()];
        ContainerView {
            container,
            link_names: vec![],
            image_name: "nginx".into(),
            endpoints: vec![EndpointView {
                endpoint: Id::from_bytes([1; 32]),
                network_name: "bridge".into(),
                network: Id::from_bytes([2; 32]),
                addresses: vec![],
                gateways: vec![],
                mac: "02:42:ac:11:00:02".parse().unwrap(),
                interface: "eth0".into(),
            }],
            placeless: None,
            host_name: "web".into(),
            ports: vec![sluice_model::PublishedPort {
                container: "80/tcp".parse().unwrap(),
                host_address: "0.0.0.0".parse().unwrap(),
                host_port: 8080,
                count: 1,
            }],
            sandbox_path: None,
            log_path: Default::default(),
            resolv_conf_path: Default::default(),
            hostname_path: Default::default(),
            hosts_path: Default::default(),
            graph: vec![],
            mounts: vec![],
            exec_ids: vec![],
            health: None,
            size: None,
        }
    }

    fn holds(filters: &[(&str, &[&str])]) -> bool {
        let owned = |(key, values): &(&str, &[&str])| {
            (
                (*key).to_owned(),
                values.iter().map(|value| (*value).to_owned()).collect(),
            )
        };
        Criteria {
            filters: filters.iter().map(owned).collect(),
            ..Default::default()
        }
        .hold(&view())
    }

    #[test]
    fn values_are_alternatives_but_labels_must_all_hold() {
        assert!(holds(&[("name", &["db", "we"])]));
        assert!(holds(&[("label", &["tier", "tier=front"])]));
        assert!(!holds(&[("label", &["tier", "zone"])]));
        assert!(!holds(&[("name", &["web"]), ("status", &["exited"])]));
    }

    #[test]
    fn names_are_matched_in_part_and_anchored_on_demand() {
        for (pattern, fits) in [
            ("eb", true),
            ("^web$", true),
            ("^/web$", true),
            ("/we", true),
            ("^(web|db)$", true),
            ("^eb", false),
            ("we$", false),
        ] {
            assert_eq!(holds(&[("name", &[pattern])]), fits, "{pattern}");
        }
    }

    #[test]
    fn ports_are_found_by_number_range_and_protocol() {
        assert!(holds(&[("publish", &["8080"])]) && holds(&[("publish", &["8000-9000/tcp"])]));
        assert!(!holds(&[("publish", &["8080/udp"])]));
        assert!(holds(&[("expose", &["80/tcp"])]) && !holds(&[("expose", &["81"])]));
        assert!(holds(&[("expose", &["81"]), ("publish", &["8080"])]), "alternatives");
        assert!(!holds(&[("expose", &["80"]), ("name", &["db"])]));
    }

    #[test]
    fn nonsense_in_a_filter_is_refused() {
        for (key, value) in [
            ("status", "asleep"),
            ("exited", "x"),
            ("publish", "http"),
            ("health", "fine"),
        ] {
            assert_eq!(
                check(key, value).unwrap_err().message,
                format!("invalid filter '{key}={value}'")
            );
        }
    }

    #[test]
    fn an_image_is_named_as_the_user_did_while_that_name_is_its_own() {
        let tags = ["nginx:latest".to_owned()];
        for (asked, fits) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("docker.io/library/nginx:latest", true),
            ("redis", false),
            ("abc", true),
        ] {
            assert_eq!(names(&tags, asked, "sha256:abcdef"), fits, "{asked}");
        }
        assert!(!names(&[], "nginx", "sha256:00"));
    }
}
