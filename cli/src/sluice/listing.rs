//! Lists: a table, a template for each row, JSON lines, or bare ids.

use serde_json::{Map, Value};

use crate::{
    failure::Failure,
    table,
    template::{Missing, Template},
};

/// What a list of one kind looks like.
pub struct Listing {
    /// The rows of the table, as a template.
    pub table: &'static str,
    /// The heading of every field there is.
    pub headings: &'static [(&'static str, &'static str)],
}

/// A row: the fields a template may name.
pub type Row = Map<String, Value>;

impl Listing {
    /// `format` as `--format` has it: `table`, `json`, `table TEMPLATE` or `TEMPLATE`.
    pub fn show(&self, format: Option<&str>, rows: &[Row]) -> Result<String, Failure> {
        let format = format.unwrap_or("table").trim_start();
        if format == "json" {
            return Ok(rows.iter().map(|row| self.json(row) + "\n").collect());
        }
        if let Some(template) = format
            .strip_prefix("table")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\\', '\t']))
        {
            let template = if template.trim().is_empty() {
                self.table
            } else {
                template.trim()
            };
            return self.table(&Template::parse(template)?, rows);
        }
        let template = Template::parse(format)?;
        rows.iter().map(|row| Ok(fill(&template, row)? + "\n")).collect()
    }

    fn table(&self, template: &Template, rows: &[Row]) -> Result<String, Failure> {
        let heading = self
            .headings
            .iter()
            .map(|(field, heading)| (field.to_string(), Value::from(*heading)));
        let mut heading: Row = heading.collect();
        heading.insert("LabelMap".into(), Value::Object(Row::new())); // `.Label "x"` of the heading is nothing
        let mut lines = vec![fill(template, &heading)?];
        for row in rows {
            lines.push(fill(template, row)?);
        }
        let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
        Ok(table::align(&lines.iter().map(cells).collect::<Vec<Vec<String>>>()))
    }

    fn json(&self, row: &Row) -> String {
        let shown = row
            .iter()
            .filter(|(field, _)| self.headings.iter().any(|(name, _)| name == field));
        let shown: Row = shown.map(|(field, value)| (field.clone(), value.clone())).collect();
        Value::Object(shown).to_string()
    }
}

fn fill(template: &Template, row: &Row) -> Result<String, Failure> {
    template.fill(&Value::Object(row.clone()), Missing::Refused)
}

/// A row of `name: value` pairs.
pub fn row(fields: impl IntoIterator<Item = (&'static str, String)>) -> Row {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect()
}

/// An id as lists show it: without the algorithm, twelve digits.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// Text of at most `width` characters, its end cut off.
pub fn ellipsis(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        table: "{{.ID}}\\t{{.Name}}",
        headings: &[("ID", "THE ID"), ("Name", "NAME")],
    };

    fn rows() -> Vec<Row> {
        vec![row([
            ("ID", "1".into()),
            ("Name", "one".into()),
            ("Hidden", "x".into()),
        ])]
    }

    #[test]
    fn a_list_is_a_table_json_or_what_the_template_says() {
        let show = |format| LISTING.show(format, &rows()).unwrap();
        assert_eq!(show(None), "THE ID    NAME\n1         one\n");
        assert_eq!(show(Some("table {{.Name}}")), "NAME\none\n");
        assert_eq!(show(Some("json")), "{\"ID\":\"1\",\"Name\":\"one\"}\n");
        assert_eq!(show(Some("{{.ID}}={{.Name}}")), "1=one\n");
        assert!(LISTING.show(Some("{{.Nope}}"), &rows()).is_err());
    }

    #[test]
    fn an_empty_list_is_its_heading() {
        assert_eq!(LISTING.show(None, &[]).unwrap(), "THE ID    NAME\n");
        assert_eq!(LISTING.show(Some("{{.ID}}"), &[]).unwrap(), "");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(ellipsis("nginx -g 'daemon off;'", 20), "nginx -g 'daemon of…");
        assert_eq!(ellipsis("ä".repeat(20).as_str(), 20), "ä".repeat(20));
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
