//! What can be known of an expression before it runs.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, SelectExpr, operators},
};

use super::{env::FUNCTIONS, value::escape};
use crate::schema::node::Node;

/// Deepest tree of an expression: evaluation is recursive.
const MAX_DEPTH: usize = 120;
/// Most operators that may be open at one place, those of the brackets around it included: parsing is
/// recursive too.
const MAX_OPERATORS: usize = 150;
/// Deepest nesting of brackets.
const MAX_BRACKETS: usize = 30;

/// Names of types, which are values.
const TYPES: [&str; 14] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional",
    "sets",
    "math",
    "strings",
];

/// How deep brackets nest; refuses texts on which the parser would go too deep.
pub(super) fn nesting(text: &str) -> Result<usize, String> {
    // How many operators are open in each of the brackets around us.
    let mut open = vec![0_usize];
    let mut quote: Option<(u8, bool)> = None;
    let mut before = b' ';
    let mut escaped = false;
    let mut deepest = 0;
    for byte in text.bytes() {
        if let Some((end, raw)) = quote {
            if escaped {
                escaped = false;
            } else if byte == b'\\' && !raw {
                escaped = true;
            } else if byte == end {
                quote = None;
            }
            continue;
        }
        match byte {
            b'\'' | b'"' => quote = Some((byte, before.eq_ignore_ascii_case(&b'r'))),
            b'(' | b'[' | b'{' => open.push(0),
            b')' | b']' | b'}' if open.len() > 1 => {
                open.pop();
                // What follows a call or an index hangs on it.
                open.last_mut().into_iter().for_each(|count| *count += 1);
            }
            // Conjunctions and lists are flat.
            b'&' | b'|' | b',' => open.last_mut().into_iter().for_each(|count| *count = 0),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'.' | b'<' | b'>' | b'=' | b'!' | b'?' => {
                open.last_mut().into_iter().for_each(|count| *count += 1);
            }
            _ => {}
        }
        before = byte;
        deepest = deepest.max(open.len());
        if open.len() > MAX_BRACKETS || open.iter().sum::<usize>() > MAX_OPERATORS {
            return Err("the expression nests too deep".to_owned());
        }
    }
    Ok(deepest)
}

/// What a walk over an expression found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Whether `oldSelf` is used.
    pub(super) old: bool,
    /// Levels of the expression.
    pub(super) depth: usize,
}

/// Checks that variables, functions and fields exist.
pub(super) fn names(expression: &IdedExpr, node: &Node) -> Result<Found, String> {
    let mut walk = Walk {
        root: node,
        scope: Vec::new(),
        found: Found {
            old: false,
            depth: 0,
        },
        depth: 0,
    };
    walk.visit(expression)?;
    Ok(walk.found)
}

/// The type of an expression, as far as it follows from the schema.
type Known<'a> = Option<&'a Node>;

/// A walk over an expression.
struct Walk<'a> {
    root: &'a Node,
    /// Variables of the macros around us.
    scope: Vec<(String, Known<'a>)>,
    found: Found,
    depth: usize,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn visit(&mut self, expression: &IdedExpr) -> Result<Known<'a>, String> {
        self.depth += 1;
        self.found.depth = self.found.depth.max(self.depth);
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the expression nests more than {MAX_DEPTH} levels deep"
            ));
        }
        let known = match &expression.expr {
            Expr::Ident(name) => self.ident(name)?,
            Expr::Select(select) => self.select(select)?,
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(comprehension) => {
                self.comprehension(comprehension)?;
                None
            }
            Expr::List(list) => {
                list.elements
                    .iter()
                    .try_for_each(|item| self.visit(item).map(drop))?;
                None
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key)?;
                        self.visit(&entry.value)?;
                    }
                }
                None
            }
            Expr::Struct(made) => {
                return Err(format!("undeclared reference to '{}'", made.type_name));
            }
            Expr::Literal(_) | Expr::Unspecified => None,
        };
        self.depth -= 1;
        Ok(known)
    }

    fn ident(&mut self, name: &str) -> Result<Known<'a>, String> {
        if let Some((_, known)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(*known);
        }
        match name {
            "self" => Ok(Some(self.root)),
            "oldSelf" => {
                self.found.old = true;
                Ok(None)
            }
            name if TYPES.contains(&name) || name.starts_with('@') => Ok(None),
            name => Err(format!("undeclared reference to '{name}'")),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Known<'a>, String> {
        let Some(node) = self.visit(&select.operand)? else {
            return Ok(None);
        };
        if let Some(child) = &node.additional {
            return Ok(Some(child));
        }
        let field = select.field.as_str();
        let mut properties = node.properties.iter();
        if let Some((_, child)) = properties.find(|(name, _)| escape(name) == field) {
            return Ok(Some(child));
        }
        // A field that is preserved but not declared cannot be seen either; a type that we do not know is
        // left to the evaluation.
        if node.properties.is_empty() {
            return Ok(None);
        }
        Err(format!("undefined field '{field}'"))
    }

    fn call(&mut self, call: &CallExpr) -> Result<Known<'a>, String> {
        let name = call.func_name.as_str();
        // A namespace is written like a target: `sets.contains(a, b)`.
        let target = call.target.as_deref();
        let known = match target {
            Some(target) => self.visit(target)?,
            None => None,
        };
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
            return Err(format!("undeclared reference to '{name}'"));
        }
        let mut first = None;
        for (index, argument) in call.args.iter().enumerate() {
            let known = self.visit(argument)?;
            if index == 0 {
                first = known;
            }
        }
        let _ = known;
        if name == operators::INDEX {
            return Ok(first.and_then(|node| node.items.as_deref().or(node.additional.as_deref())));
        }
        Ok(None)
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Result<(), String> {
        let range = self.visit(&loops.iter_range)?;
        self.visit(&loops.accu_init)?;
        let items = range.and_then(|node| node.items.as_deref());
        let outer = self.scope.len();
        self.scope.push((loops.accu_var.clone(), None));
        match &loops.iter_var2 {
            // With two variables the first is the index or the key, the second the value.
            Some(second) => {
                self.scope.push((loops.iter_var.clone(), None));
                self.scope.push((second.clone(), items));
            }
            None => self.scope.push((loops.iter_var.clone(), items)),
        }
        self.visit(&loops.loop_cond)?;
        self.visit(&loops.loop_step)?;
        self.scope.truncate(outer + 1);
        self.visit(&loops.result)?;
        self.scope.truncate(outer);
        Ok(())
    }
}
