//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! A rule sees the value as its schema describes it: declared fields only, under their escaped names, with
//! the types that formats give. Programs are compiled when the schema is read. Evaluation has no budget as
//! in a cluster: what bounds it are the sizes of rules and objects.

mod check;
mod env;
mod function;
mod value;

use std::thread;

use cel::{Context, Program, Value as CelValue};
use serde_json::Value;

use super::{
    Cause, Error, Reason,
    node::Node,
    parse::{Text, fault},
    path::Path,
    validate::{Place, counterpart, type_name},
};

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 16 * 1024;
/// Longest message, in bytes. More is cut by the API server too.
const MAX_MESSAGE: usize = 5 * 1024;
/// Rules of one node.
const MAX_RULES: usize = 100;
/// What runs on the stack that is there: so many open brackets, or levels of an expression.
const SHALLOW: usize = 6;
/// Stack for what is deeper, in bytes. Only what is used takes memory.
const STACK: usize = 16 * 1024 * 1024;

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    text: Box<str>,
    program: Program,
    message: Option<Box<str>>,
    message_program: Option<Program>,
    reason: Reason,
    /// Where below the value the fault is reported: `.spec.foo`.
    field_path: Box<str>,
    /// Whether the rule compares with the old value.
    transition: bool,
    /// Whether `oldSelf` may be absent, so that creations are judged too.
    optional_old: bool,
    /// Whether evaluation needs a stack of its own.
    deep: bool,
}

// === impl Rule ===

impl Rule {
    /// Compiles the rules of a node, which is otherwise complete.
    pub(super) fn all(text: &Text, node: &Node, path: Path<'_>) -> Result<Vec<Self>, Error> {
        let path = path.field("x-kubernetes-validations");
        let rules = match text.get("x-kubernetes-validations") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(rules)) if rules.len() <= MAX_RULES => rules,
            Some(Value::Array(rules)) => {
                let most = format!(
                    "Too many: {}: must have at most {MAX_RULES} items",
                    rules.len()
                );
                return Err(fault(path, most));
            }
            Some(_) => return Err(fault(path, "Invalid value: must be a list")),
        };
        let rules = rules.iter().enumerate();
        rules
            .map(|(index, rule)| Self::compile(rule, node, path.index(index)))
            .collect()
    }

    fn compile(text: &Value, node: &Node, path: Path<'_>) -> Result<Self, Error> {
        let word = |name: &str| text.get(name).and_then(Value::as_str).map(str::trim);
        let Some(rule) = word("rule").filter(|rule| !rule.is_empty()) else {
            return Err(fault(path.field("rule"), "Required value"));
        };
        let optional_old = text.get("optionalOldSelf").is_some_and(|flag| flag == true);
        let (program, found) = expression(rule, node, path.field("rule"))?;
        if optional_old && !found.old {
            let detail = "Invalid value: true: may not be set if oldSelf is not used in rule";
            return Err(fault(path.field("optionalOldSelf"), detail));
        }
        let mut depth = found.depth;
        let mut message_program = None;
        if let Some(text) = word("messageExpression") {
            let (program, found) = expression(text, node, path.field("messageExpression"))?;
            depth = depth.max(found.depth);
            message_program = Some(program);
        }
        Ok(Self {
            text: rule.into(),
            program,
            message: word("message")
                .filter(|text| !text.is_empty())
                .map(Into::into),
            message_program,
            reason: reason(word("reason"), path.field("reason"))?,
            field_path: field_path(word("fieldPath"), node, path.field("fieldPath"))?,
            transition: found.old,
            optional_old,
            deep: depth > SHALLOW,
        })
    }

    fn judge(&self, node: &Node, value: &Value, place: Place<'_>, causes: &mut Vec<Cause>) {
        if self.transition && place.old.is_none() && !self.optional_old {
            return;
        }
        let mut context = Context::with_env(env::environment());
        context.add_variable_from_value("self", value::of(node, value));
        if self.transition {
            let old = place.old.map(|old| value::of(node, old));
            let old = match old {
                old if self.optional_old => value::optional(old),
                old => old.unwrap_or(CelValue::Null),
            };
            context.add_variable_from_value("oldSelf", old);
        }
        let verdict = with_stack(self.deep, || self.evaluate(&context));
        let lost = || Some(format!("no thread to evaluate the rule on: {}", self.text));
        let Some(detail) = verdict.unwrap_or_else(lost) else {
            return;
        };
        let field = format!("{}{}", place.path, self.field_path);
        let field = field.strip_prefix('.').unwrap_or(&field);
        let message = match self.reason {
            Reason::Required => format!("Required value: {detail}"),
            Reason::Forbidden => format!("Forbidden: {detail}"),
            Reason::Duplicate => format!("Duplicate value: {:?}", type_name(value)),
            _ => format!("Invalid value: {:?}: {detail}", type_name(value)),
        };
        causes.push(Cause::new(field, self.reason, message));
    }

    /// What is wrong, if anything.
    fn evaluate(&self, context: &Context<'_, '_>) -> Option<String> {
        match self.program.execute(context) {
            Ok(CelValue::Bool(true)) => None,
            Ok(CelValue::Bool(false)) => Some(self.words(context)),
            Ok(other) => {
                let kind = other.type_of();
                Some(format!(
                    "rule gives {kind:?} rather than a bool: {}",
                    self.text
                ))
            }
            Err(error) => {
                let rule = self.message.as_ref().unwrap_or(&self.text);
                Some(format!("{error} evaluating rule: {rule}"))
            }
        }
    }

    /// What to say of a value that breaks the rule. A message that cannot be made gives way to the fixed one.
    fn words(&self, context: &Context<'_, '_>) -> String {
        let made = self
            .message_program
            .as_ref()
            .and_then(|program| program.execute(context).ok());
        if let Some(CelValue::String(made)) = made {
            let made = made.trim();
            if !made.is_empty() && !made.contains('\n') && made.len() <= MAX_MESSAGE {
                return made.to_owned();
            }
        }
        let fixed = self.message.as_ref().map(ToString::to_string);
        fixed.unwrap_or_else(|| format!("failed rule: {}", self.text))
    }
}

/// Whether there are rules anywhere in the tree.
pub(super) fn has_rules(node: &Node) -> bool {
    node.ruled
}

/// Evaluates all rules of a value and of what it contains.
pub(super) fn validate(node: &Node, value: &Value, place: Place<'_>, causes: &mut Vec<Cause>) {
    if !node.ruled || place.old == Some(value) || value.is_null() {
        return;
    }
    for rule in &node.rules {
        rule.judge(node, value, place, causes);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(child) = node.field(name) {
                    let place = Place {
                        path: place.path.field(name),
                        old: place.old.and_then(|old| old.get(name)),
                    };
                    validate(child, value, place, causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            let olds = place.old.and_then(Value::as_array);
            for (index, item) in items.iter().enumerate() {
                let place = Place {
                    path: place.path.index(index),
                    old: olds.and_then(|olds| counterpart(node, item, olds)),
                };
                validate(child, item, place, causes);
            }
        }
        _ => {}
    }
}

/// Compiles an expression.
fn expression(text: &str, node: &Node, path: Path<'_>) -> Result<(Program, check::Found), Error> {
    let wrong = |detail: String| {
        fault(
            path,
            format!("Invalid value: {text:?}: compilation failed: {detail}"),
        )
    };
    if text.len() > MAX_EXPRESSION {
        let detail = format!("Too long: may not be more than {MAX_EXPRESSION} bytes");
        return Err(fault(path, detail));
    }
    let depth = check::nesting(text).map_err(wrong)?;
    let program = compile(text, depth).map_err(wrong)?;
    let found = check::names(program.expression(), node).map_err(wrong)?;
    Ok((program, found))
}

/// Parses an expression.
fn compile(text: &str, depth: usize) -> Result<Program, String> {
    let parse = || {
        env::environment()
            .compile(text)
            .map_err(|errors| errors.to_string())
    };
    with_stack(depth > SHALLOW, parse).unwrap_or_else(|| Err("the parser did not end".to_owned()))
}

/// Runs something, with room for deep recursion if that is needed: unoptimised, the language needs some
/// 100 KiB of stack for each open bracket when it parses, and half of that when it evaluates. `None`: there
/// is no thread to be had, or it panicked.
fn with_stack<T: Send>(deep: bool, run: impl FnOnce() -> T + Send) -> Option<T> {
    if !deep {
        return Some(run());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, run);
        thread.ok()?.join().ok()
    })
}

fn reason(word: Option<&str>, path: Path<'_>) -> Result<Reason, Error> {
    match word {
        None | Some("" | "FieldValueInvalid") => Ok(Reason::Invalid),
        Some("FieldValueForbidden") => Ok(Reason::Forbidden),
        Some("FieldValueRequired") => Ok(Reason::Required),
        Some("FieldValueDuplicate") => Ok(Reason::Duplicate),
        Some(other) => {
            let supported = "supported values: \"FieldValueRequired\", \"FieldValueForbidden\", \
                             \"FieldValueInvalid\", \"FieldValueDuplicate\"";
            Err(fault(
                path,
                format!("Unsupported value: {other:?}: {supported}"),
            ))
        }
    }
}

/// Reads `.spec.foo` or `['a']` and checks that there is such a field.
fn field_path(word: Option<&str>, node: &Node, path: Path<'_>) -> Result<Box<str>, Error> {
    let Some(text) = word.filter(|text| !text.is_empty()) else {
        return Ok("".into());
    };
    let wrong = || {
        let detail = "must be a valid path that refers to a field of the schema";
        fault(path, format!("Invalid value: {text:?}: {detail}"))
    };
    let mut at = Some(node);
    let mut shown = String::new();
    for part in text.replace("['", ".").replace("']", "").split('.').skip(1) {
        let child = at.and_then(|node| node.field(part)).ok_or_else(wrong)?;
        shown = format!("{shown}.{part}");
        at = Some(child);
    }
    if shown.is_empty() {
        Err(wrong())
    } else {
        Ok(shown.into())
    }
}
