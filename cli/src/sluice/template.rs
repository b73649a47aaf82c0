//! The part of Go's templates that people type: fields, `json`, `upper`, `lower`, `join`, `index`, `len`, `range`, `if`.
//!
//! Everything else is refused with a sentence rather than printed wrong.

use serde_json::Value;

use crate::failure::Failure;

/// A template, read.
#[derive(Debug)]
pub struct Template(Vec<Part>);

/// What a field that is not there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// An error: lists have the fields they have.
    Refused,
    /// `<no value>`: a document may lack it.
    NoValue,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Show(Expression),
    Range(Expression, Vec<Part>, Vec<Part>),
    If(Expression, Vec<Part>, Vec<Part>),
}

#[derive(Debug)]
enum Expression {
    /// `.A.B`; none is the dot itself.
    Field(Vec<String>),
    Text(String),
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Upper,
    Lower,
    Join,
    Index,
    Len,
}

impl Template {
    /// Reads a template; `\t` and `\n` are what they are in Go strings.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        let (parts, end) = parts(&mut rest)?;
        match end {
            Until::Text => Ok(Self(parts)),
            _ => Err(wrong("unexpected {{end}} or {{else}}")),
        }
    }

    /// Fills it in.
    pub fn fill(&self, data: &Value, missing: Missing) -> Result<String, Failure> {
        let mut text = String::new();
        fill(&self.0, data, missing, &mut text)?;
        Ok(text)
    }
}

/// What a list of parts ended with.
enum Until {
    Text,
    Else,
    End,
}

fn parts(rest: &mut &str) -> Result<(Vec<Part>, Until), Failure> {
    let mut parts = Vec::new();
    loop {
        let Some((before, after)) = rest.split_once("{{") else {
            if !rest.is_empty() {
                parts.push(Part::Text(std::mem::take(rest).to_owned()));
            }
            return Ok((parts, Until::Text));
        };
        let (action, after) = after.split_once("}}").ok_or_else(|| wrong("unclosed action"))?;
        // `{{-` and `-}}` take the blanks beside them away
        let before = if action.starts_with("- ") {
            before.trim_end()
        } else {
            before
        };
        let after = if action.ends_with(" -") {
            after.trim_start()
        } else {
            after
        };
        let action = action.trim_start_matches("- ").trim_end_matches(" -").trim();
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        *rest = after;
        match action.split_once(char::is_whitespace).unwrap_or((action, "")) {
            ("end", "") => return Ok((parts, Until::End)),
            ("else", "") => return Ok((parts, Until::Else)),
            ("range", over) => {
                let (body, otherwise) = block(rest)?;
                parts.push(Part::Range(expression(over)?, body, otherwise));
            }
            ("if", condition) => {
                let (body, otherwise) = block(rest)?;
                parts.push(Part::If(expression(condition)?, body, otherwise));
            }
            _ if action.starts_with("/*") => {}
            _ => parts.push(Part::Show(expression(action)?)),
        }
    }
}

/// Up to `{{end}}`, with what stands behind `{{else}}`.
fn block(rest: &mut &str) -> Result<(Vec<Part>, Vec<Part>), Failure> {
    let (body, end) = parts(rest)?;
    match end {
        Until::End => Ok((body, Vec::new())),
        Until::Else => match parts(rest)? {
            (otherwise, Until::End) => Ok((body, otherwise)),
            _ => Err(wrong("{{else}} without its {{end}}")),
        },
        Until::Text => Err(wrong("{{range}} or {{if}} without its {{end}}")),
    }
}

fn expression(text: &str) -> Result<Expression, Failure> {
    let mut piped: Option<Expression> = None;
    for stage in words(text)?.split(|word| word == "|") {
        let (first, arguments) = stage.split_first().ok_or_else(|| wrong("missing value for command"))?;
        let mut arguments = arguments
            .iter()
            .map(|word| operand(word))
            .collect::<Result<Vec<_>, _>>()?;
        let function = match first.as_str() {
            "json" => Some(Function::Json),
            "upper" => Some(Function::Upper),
            "lower" => Some(Function::Lower),
            "join" => Some(Function::Join),
            "index" => Some(Function::Index),
            "len" => Some(Function::Len),
            _ => None,
        };
        piped = Some(match function {
            Some(function) => {
                arguments.extend(piped.take());
                let fits = match function {
                    Function::Join => arguments.len() == 2,
                    Function::Index => arguments.len() >= 2,
                    _ => arguments.len() == 1,
                };
                if !fits {
                    return Err(wrong(&format!("wrong number of args for {first}")));
                }
                Expression::Call(function, arguments)
            }
            // a method of Docker's rows, `.Label "name"`
            None if first == ".Label" && arguments.len() == 1 => {
                let labels = Expression::Field(vec!["LabelMap".into()]);
                Expression::Call(Function::Index, [labels].into_iter().chain(arguments).collect())
            }
            None if arguments.is_empty() && piped.is_none() => operand(first)?,
            None => return Err(wrong(&format!("function {first:?} not defined"))),
        });
    }
    piped.ok_or_else(|| wrong("missing value for command"))
}

/// Words by blanks; strings, and what stands in parentheses, are one word. The bar is a word of its own.
fn words(text: &str) -> Result<Vec<String>, Failure> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' | '`' => {
                word.push('"');
                loop {
                    match characters.next().ok_or_else(|| wrong("unterminated quoted string"))? {
                        end if end == character => break,
                        '\\' if character == '"' => word.extend(characters.next()),
                        other => word.push(other),
                    }
                }
                words.push(std::mem::take(&mut word));
            }
            '(' | ')' => return Err(wrong("parentheses are not supported here")),
            '|' => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push("|".into());
            }
            blank if blank.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            other => word.push(other),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    Ok(words)
}

fn operand(word: &str) -> Result<Expression, Failure> {
    if let Some(text) = word.strip_prefix('"') {
        return Ok(Expression::Text(text.to_owned()));
    }
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Expression::Text(word.to_owned()));
    }
    match word.strip_prefix('.') {
        Some("") => Ok(Expression::Field(Vec::new())),
        Some(path) if !path.split('.').any(str::is_empty) => {
            Ok(Expression::Field(path.split('.').map(str::to_owned).collect()))
        }
        _ => Err(wrong(&format!(
            "{word:?} is not supported here: use fields (.A.B), json, upper, lower, join, index, len, range, if"
        ))),
    }
}

fn fill(parts: &[Part], data: &Value, missing: Missing, text: &mut String) -> Result<(), Failure> {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Show(expression) => match evaluate(expression, data, missing)? {
                Some(value) => text.push_str(&shown(&value)),
                None => text.push_str("<no value>"),
            },
            Part::Range(over, body, otherwise) => match evaluate(over, data, missing)? {
                Some(Value::Array(items)) if !items.is_empty() => {
                    items.iter().try_for_each(|item| fill(body, item, missing, text))?;
                }
                Some(Value::Object(fields)) if !fields.is_empty() => {
                    fields.values().try_for_each(|item| fill(body, item, missing, text))?;
                }
                _ => fill(otherwise, data, missing, text)?,
            },
            Part::If(condition, body, otherwise) => {
                let holds = evaluate(condition, data, missing)?.is_some_and(|value| is_true(&value));
                fill(if holds { body } else { otherwise }, data, missing, text)?;
            }
        }
    }
    Ok(())
}

fn evaluate(expression: &Expression, data: &Value, missing: Missing) -> Result<Option<Value>, Failure> {
    match expression {
        Expression::Text(text) => Ok(Some(Value::String(text.clone()))),
        Expression::Field(path) => field(path, data, missing),
        Expression::Call(function, arguments) => {
            let values = arguments.iter().map(|argument| evaluate(argument, data, missing));
            let values = values.collect::<Result<Vec<_>, _>>()?;
            call(*function, &values, missing)
        }
    }
}

fn field(path: &[String], data: &Value, missing: Missing) -> Result<Option<Value>, Failure> {
    let mut value = data;
    for name in path {
        value = match value.get(name) {
            Some(value) => value,
            None if missing == Missing::NoValue => return Ok(None),
            None => return Err(wrong(&format!("can't evaluate field {name}"))),
        };
    }
    Ok(Some(value.clone()))
}

fn call(function: Function, values: &[Option<Value>], missing: Missing) -> Result<Option<Value>, Failure> {
    let first = values.first().cloned().flatten().unwrap_or_default();
    let text = match function {
        Function::Json => first.to_string(),
        Function::Upper => shown(&first).to_uppercase(),
        Function::Lower => shown(&first).to_lowercase(),
        Function::Len => {
            let length = match &first {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                other => shown(other).len(),
            };
            return Ok(Some(length.into()));
        }
        Function::Join => {
            // `join .List ","`, but piped `.List | join ","`
            let separator = values.iter().flatten().find_map(Value::as_str).unwrap_or_default();
            let items = values
                .iter()
                .flatten()
                .find_map(Value::as_array)
                .cloned()
                .unwrap_or_default();
            items.iter().map(shown).collect::<Vec<_>>().join(separator)
        }
        Function::Index => {
            let mut value = first;
            for key in values[1..].iter().flatten().map(shown) {
                let next = match &value {
                    Value::Array(items) => key.parse::<usize>().ok().and_then(|number| items.get(number)),
                    other => other.get(&key),
                };
                value = match (next, missing) {
                    (Some(next), _) => next.clone(),
                    (None, Missing::Refused) => Value::String(String::new()),
                    (None, Missing::NoValue) if value.is_array() => {
                        return Err(wrong(&format!("error calling index: index out of range: {key}")));
                    }
                    (None, Missing::NoValue) => return Ok(None),
                };
            }
            return Ok(Some(value));
        }
    };
    Ok(Some(Value::String(text)))
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn wrong(why: &str) -> Failure {
    Failure::Usage(format!("template parsing error: template: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str) -> Result<String, Failure> {
        let data = json!({"Name": "/web", "State": {"Running": true, "Pid": 7, "Health": null}, "Args": ["a", "b"],
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "other": {"IPAddress": "10.0.0.2"}}, "LabelMap": {"x": "y"}, "Empty": []});
        Template::parse(template)?.fill(&data, Missing::NoValue)
    }

    fn right(template: &str) -> String {
        filled(template).unwrap()
    }

    #[test]
    fn fields_are_printed_as_go_does() {
        assert_eq!(
            right("{{.Name}} {{.State.Running}} {{ .State.Pid }} {{.Args}}"),
            "/web true 7 [a b]"
        );
        assert_eq!(right("{{.State}}"), "map[Health:<nil> Pid:7 Running:true]");
        assert_eq!(right("{{.None}} {{.State.Health}}"), "<no value> <nil>");
        assert_eq!(right("a\\tb\\n"), "a\tb\n");
    }

    #[test]
    fn functions_take_their_value_before_or_by_pipe() {
        assert_eq!(right("{{json .Args}}"), r#"["a","b"]"#);
        assert_eq!(right("{{json .State.Pid}}{{.Name | json}}"), r#"7"/web""#);
        assert_eq!(right("{{upper .Name}} {{.Name | upper | lower}}"), "/WEB /web");
        assert_eq!(right("{{join .Args \", \"}}"), "a, b");
        assert_eq!(
            right("{{len .Args}} {{index .Args 1}} {{index .Networks \"bridge\" \"IPAddress\"}}"),
            "2 b 172.17.0.2"
        );
        assert_eq!(right("{{.Label \"x\"}}"), "y");
    }

    #[test]
    fn ranges_and_conditions_have_their_end() {
        assert_eq!(
            right("{{range .Networks}}{{.IPAddress}} {{end}}"),
            "172.17.0.2 10.0.0.2 "
        );
        assert_eq!(right("{{range .Empty}}x{{else}}none{{end}}"), "none");
        assert_eq!(
            right("{{if .State.Running}}up{{else}}down{{end}}{{if .State.Health}}!{{end}}"),
            "up"
        );
        assert_eq!(right("a {{- .State.Pid -}} b"), "a7b");
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for template in [
            "{{.A",
            "{{end}}",
            "{{range .Args}}",
            "{{printf \"%s\" .Name}}",
            "{{$x}}",
            "{{range $k, $v := .Networks}}{{end}}",
            "{{}}",
            "{{json}}",
            "{{(.A)}}",
            "{{.A..B}}",
        ] {
            assert!(
                filled(template)
                    .unwrap_err()
                    .to_string()
                    .starts_with("template parsing error"),
                "{template}"
            );
        }
    }

    #[test]
    fn a_row_refuses_a_field_it_does_not_have() {
        let row = json!({"ID": "1"});
        let failure = Template::parse("{{.Id}}")
            .unwrap()
            .fill(&row, Missing::Refused)
            .unwrap_err();
        assert!(failure.to_string().contains("can't evaluate field Id"));
    }
}
