//! The tag of a log: Docker's template, as far as people write it.

use sluice_model::Container;

use crate::EngineError;

/// Fills the template in: fields as `{{.Name}}`, labels as `{{index .ContainerLabels "tier"}}`.
pub(super) fn fill(template: &str, container: &Container) -> Result<String, EngineError> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((expression, after)) = after.split_once("}}") else {
            return Err(refused(template));
        };
        filled.push_str(before);
        filled.push_str(&value(expression.trim(), container).ok_or_else(|| refused(template))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn refused(template: &str) -> EngineError {
    EngineError::invalid(format!(
        "log tag {template:?} is not understood: use {{{{.ID}}}}, {{{{.FullID}}}}, {{{{.Name}}}}, {{{{.ImageID}}}}, {{{{.ImageFullID}}}}, \
         {{{{.ImageName}}}}, {{{{.DaemonName}}}}, {{{{.Command}}}}, {{{{.Hostname}}}} or {{{{index .ContainerLabels \"name\"}}}}"
    ))
}

fn value(expression: &str, container: &Container) -> Option<String> {
    let image = container.image_id.trim_start_matches("sha256:");
    let config = &container.config;
    let text = match expression {
        ".ID" => container.id.short(),
        ".FullID" => container.id.as_str(),
        ".Name" => &container.name,
        ".ImageName" => &config.image,
        ".ImageID" => image.get(..12).unwrap_or(image),
        ".ImageFullID" => &container.image_id,
        ".DaemonName" => "docker",
        ".Hostname" => config.hostname.as_deref().unwrap_or(container.id.short()),
        ".Command" => {
            let words: Vec<&str> = config
                .entrypoint
                .iter()
                .flatten()
                .chain(&config.cmd)
                .map(String::as_str)
                .collect();
            return Some(words.join(" "));
        }
        _ => {
            let name = expression.strip_prefix("index .ContainerLabels")?.trim();
            let name = name.strip_prefix('"')?.strip_suffix('"')?;
            config.labels.get(name).map_or("", String::as_str)
        }
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    #[test]
    fn fields_and_labels_are_filled_in_and_what_is_not_understood_is_refused() {
        let mut container = record("web", 0xab);
        container.config.labels = [("tier".to_owned(), "front".to_owned())].into();
        container.config.cmd = vec!["nginx".into(), "-g".into()];
        for (template, tag) in [
            ("plain", "plain"),
            ("{{.Name}}/{{ .ID }}", "web/abababababab"),
            (
                "{{index .ContainerLabels \"tier\"}}-{{index .ContainerLabels \"none\"}}",
                "front-",
            ),
            ("{{.Command}}", "nginx -g"),
        ] {
            assert_eq!(fill(template, &container).unwrap(), tag);
        }
        for template in ["{{.Nonsense}}", "{{.Name", "{{index .ContainerLabels tier}}"] {
            assert!(fill(template, &container).is_err(), "{template}");
        }
    }
}
