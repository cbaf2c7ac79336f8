//! How expressions are written: checked token by token, each fault with its column, and rewritten for the crate that evaluates
//! them: numbers without an exponent, names in braces, a call of two values as an operator between parentheses.

use std::fmt;

use crate::config::fault::{Wrong, did_you_mean};

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 32;

/// Functions of one argument.
const UNARY: [&str; 14] =
    ["abs", "acos", "asin", "atan", "ceil", "cos", "exp", "floor", "ln", "log10", "round", "sin", "sqrt", "tan"];
/// Functions of two arguments.
const BINARY: [&str; 3] = ["atan2", "max", "min"];

/// What a parenthesis was opened for.
#[derive(Clone, Copy)]
enum Opened {
    Group,
    Unary,
    Binary { name: &'static str, comma: bool },
}

/// How the value that is being read began.
#[derive(Clone, Copy, Default)]
struct Begun {
    /// Behind a minus of its own.
    signed: bool,
    /// Behind `^`.
    raised: bool,
}

/// Checks the notation and writes it as the crate takes it.
pub(super) struct Rewriter<'t> {
    text: &'t str,
    rest: &'t str,
    out: String,
    open: Vec<(usize, Opened, Begun)>,
    begun: Begun,
    /// Whether a value must come next.
    wants_value: bool,
}

impl<'t> Rewriter<'t> {
    pub(super) fn new(text: &'t str) -> Rewriter<'t> {
        Rewriter {
            text,
            rest: text,
            out: String::with_capacity(text.len() * 2),
            open: Vec::new(),
            begun: Begun::default(),
            wants_value: true,
        }
    }

    pub(super) fn run(mut self) -> Result<String, Wrong> {
        loop {
            self.rest = self.rest.trim_start();
            let Some(letter) = self.rest.chars().next() else { break };
            match letter {
                '0'..='9' => self.number()?,
                'a'..='z' | 'A'..='Z' | '_' => self.name()?,
                '{' => self.braces()?,
                '(' => self.parenthesis(Opened::Group, "(", 1)?,
                ')' => self.close()?,
                ',' => self.comma()?,
                '+' | '-' | '*' | '/' | '^' => self.operator(letter)?,
                other => return Err(self.fault(format!("{other:?} means nothing here"))),
            }
        }
        if let Some((column, ..)) = self.open.last() {
            return Err(format!("the parenthesis at column {column} is not closed").into());
        }
        if self.wants_value {
            return Err(self.fault("ends where a value is expected"));
        }
        Ok(self.out)
    }

    /// In characters, from 1.
    fn column(&self) -> usize {
        let before = self.text.len().saturating_sub(self.rest.len());
        self.text.get(..before).map_or(1, |before| before.chars().count().saturating_add(1))
    }

    fn fault(&self, message: impl fmt::Display) -> Wrong {
        Wrong::new(format!("column {}: {message}", self.column()))
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// A value begins here.
    fn begin(&self, what: &str) -> Result<(), Wrong> {
        if self.wants_value { Ok(()) } else { Err(self.fault(format!("expected an operator before {what}"))) }
    }

    fn number(&mut self) -> Result<(), Wrong> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let at = |from: usize| self.rest.get(from..).unwrap_or_default();
        let mut length = digits(self.rest);
        if at(length).starts_with('.') {
            length += 1;
            length += digits(at(length));
        }
        if at(length).starts_with(['e', 'E']) {
            let sign = usize::from(at(length + 1).starts_with(['+', '-']));
            let exponent = digits(at(length + 1 + sign));
            if exponent > 0 {
                length += 1 + sign + exponent;
            }
        }
        let text = self.rest.get(..length).unwrap_or_default();
        self.begin(text)?;
        match text.parse::<f64>() {
            // Written out, without an exponent.
            Ok(number) if number.is_finite() => self.out.push_str(&number.to_string()),
            _ => return Err(self.fault(format!("{text} is out of range of a 64-bit float"))),
        }
        self.take(length);
        self.wants_value = false;
        Ok(())
    }

    fn name(&mut self) -> Result<(), Wrong> {
        let length = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = self.rest.get(..length).unwrap_or_default();
        self.begin(name)?;
        let behind = self.rest.get(length..).unwrap_or_default();
        let gap = behind.len() - behind.trim_start().len();
        if behind.trim_start().starts_with('(') {
            return self.call(name, length + gap + 1);
        }
        if name == "pi" {
            self.out.push_str(&std::f64::consts::PI.to_string());
        } else {
            self.out.extend(["{", name, "}"]);
        }
        self.take(length);
        self.wants_value = false;
        Ok(())
    }

    fn call(&mut self, name: &str, length: usize) -> Result<(), Wrong> {
        if let Some(name) = UNARY.iter().find(|known| **known == name) {
            return self.parenthesis(Opened::Unary, &format!("{name}("), length);
        }
        if let Some(name) = BINARY.iter().find(|known| **known == name) {
            return self.parenthesis(Opened::Binary { name, comma: false }, "((", length);
        }
        let known = || UNARY.into_iter().chain(BINARY);
        let all = || format!("known: {}", known().collect::<Vec<_>>().join(", "));
        let suggestion = did_you_mean(name, known()).or_else(|| Some(all()));
        Err(self.fault(format!("there is no function {name}")).suggest(suggestion))
    }

    fn braces(&mut self) -> Result<(), Wrong> {
        let Some((name, _)) = self.rest.get(1..).and_then(|rest| rest.split_once('}')) else {
            return Err(self.fault("the brace is not closed"));
        };
        self.begin(&format!("{{{name}}}"))?;
        if name.is_empty() || name.contains('{') {
            return Err(self.fault("expected a metric's name in braces"));
        }
        self.out.extend(["{", name, "}"]);
        self.take(name.len() + 2);
        self.wants_value = false;
        Ok(())
    }

    fn parenthesis(&mut self, opened: Opened, written: &str, length: usize) -> Result<(), Wrong> {
        self.begin("(")?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.fault(format!("parentheses are nested deeper than {MAX_DEPTH}")));
        }
        self.out.push_str(written);
        self.open.push((self.column() + length.saturating_sub(1), opened, std::mem::take(&mut self.begun)));
        self.take(length);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        if self.wants_value {
            return Err(self.fault("expected a value before )"));
        }
        let Some((_, opened, begun)) = self.open.pop() else {
            return Err(self.fault("this parenthesis was not opened"));
        };
        self.out.push_str(match opened {
            Opened::Group | Opened::Unary => ")",
            Opened::Binary { comma: true, .. } => "))",
            Opened::Binary { name, comma: false } => {
                return Err(self.fault(format!("{name} takes two values, as in {name}(a, b)")));
            }
        });
        self.begun = begun;
        self.take(1);
        Ok(())
    }

    fn comma(&mut self) -> Result<(), Wrong> {
        if self.wants_value {
            return Err(self.fault("expected a value before the comma"));
        }
        match self.open.last_mut() {
            Some((_, Opened::Binary { name, comma }, _)) if !*comma => {
                self.out.extend([") ", *name, " ("]);
                *comma = true;
            }
            _ => return Err(self.fault(format!("only {} take two values", BINARY.join(", ")))),
        }
        self.begun = Begun::default();
        self.wants_value = true;
        self.take(1);
        Ok(())
    }

    fn operator(&mut self, operator: char) -> Result<(), Wrong> {
        if self.wants_value {
            if operator != '-' || self.begun.signed {
                return Err(self.fault(format!("expected a value before {operator}")));
            }
            self.begun.signed = true;
        } else {
            if operator == '^' && (self.begun.signed || self.begun.raised) {
                let suggestion = Some("put parentheses, as in -(a ^ b) or (a ^ b) ^ c".to_owned());
                return Err(self.fault("what is raised here is not clear").suggest(suggestion));
            }
            self.begun = Begun { signed: false, raised: operator == '^' };
            self.wants_value = true;
        }
        self.out.push(operator);
        self.take(1);
        Ok(())
    }
}
