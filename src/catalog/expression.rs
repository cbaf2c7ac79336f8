//! Arithmetic over a device's metrics, as `[[derived]]` has it.
//!
//! The crate `exmex` evaluates; the notation is checked here first and rewritten for it, since it knows neither `1e-3` nor a call
//! within a call's second argument, names no place in its errors, and lets a minus bind tighter than `^`.

use std::fmt;
use std::sync::Arc;

use exmex::{BinOp, Express, FlatEx, MakeOperators, Operator, ops_factory};
use serde::{Deserialize, Serialize};

use crate::config::fault::{Wrong, did_you_mean};

/// Longest expression, bytes.
const MAX_TEXT: usize = 1024;
/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 32;
/// Most metrics that one expression is over.
pub const MAX_INPUTS: usize = 16;

/// Functions of one argument.
const UNARY: [&str; 14] =
    ["abs", "acos", "asin", "atan", "ceil", "cos", "exp", "floor", "ln", "log10", "round", "sin", "sqrt", "tan"];
/// Functions of two arguments.
const BINARY: [&str; 3] = ["atan2", "max", "min"];

ops_factory!(
    Functions,
    f64,
    Operator::make_bin("^", BinOp { apply: f64::powf, prio: 3, is_commutative: false }),
    Operator::make_bin("*", BinOp { apply: |a, b| a * b, prio: 2, is_commutative: false }),
    Operator::make_bin("/", BinOp { apply: |a, b| a / b, prio: 2, is_commutative: false }),
    Operator::make_bin("+", BinOp { apply: |a, b| a + b, prio: 1, is_commutative: false }),
    Operator::make_bin_unary("-", BinOp { apply: |a, b| a - b, prio: 1, is_commutative: false }, |a: f64| -a),
    Operator::make_bin("atan2", BinOp { apply: f64::atan2, prio: 0, is_commutative: false }),
    Operator::make_bin("max", BinOp { apply: f64::max, prio: 0, is_commutative: false }),
    Operator::make_bin("min", BinOp { apply: f64::min, prio: 0, is_commutative: false }),
    Operator::make_unary("abs", f64::abs),
    Operator::make_unary("acos", f64::acos),
    Operator::make_unary("asin", f64::asin),
    Operator::make_unary("atan", f64::atan),
    Operator::make_unary("ceil", f64::ceil),
    Operator::make_unary("cos", f64::cos),
    Operator::make_unary("exp", f64::exp),
    Operator::make_unary("floor", f64::floor),
    Operator::make_unary("ln", f64::ln),
    Operator::make_unary("log10", f64::log10),
    Operator::make_unary("round", f64::round),
    Operator::make_unary("sin", f64::sin),
    Operator::make_unary("sqrt", f64::sqrt),
    Operator::make_unary("tan", f64::tan)
);

/// An expression ready to be evaluated.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    inputs: Vec<String>,
    /// Twenty kilobytes.
    compiled: Arc<FlatEx<f64, Functions>>,
}

impl Expression {
    /// Reads an expression: numbers, metrics' names (in braces where they have other characters than letters, digits and `_`),
    /// `+ - * / ^`, parentheses, `pi` and functions.
    ///
    /// # Errors
    /// What is wrong, with its column.
    pub fn parse(text: &str) -> Result<Expression, Wrong> {
        if text.len() > MAX_TEXT {
            return Err(format!("has {} bytes, {MAX_TEXT} are the most", text.len()).into());
        }
        let rewritten = Rewriter::new(text).run()?;
        let refused = |error: exmex::ExError| Wrong::new(format!("can't be evaluated: {}", error.msg()));
        let compiled: FlatEx<f64, Functions> = FlatEx::parse(&rewritten).map_err(refused)?;
        let inputs = compiled.var_names().to_vec();
        match inputs.len() {
            0 => Err("is over no metric, so that it would never have a value".into()),
            many if many > MAX_INPUTS => Err(format!("is over {many} metrics, {MAX_INPUTS} are the most").into()),
            _ => Ok(Expression { text: text.to_owned(), inputs, compiled: Arc::new(compiled) }),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the metrics that it is over, in order.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Its value; `values`: of [`Expression::inputs`]. Not finite where there is none, as of a division by zero.
    pub fn evaluate(&self, values: &[f64]) -> f64 {
        self.compiled.eval(values).unwrap_or(f64::NAN)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Expression, String> {
        Expression::parse(&text).map_err(|wrong| wrong.message)
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> String {
        expression.text
    }
}

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
struct Rewriter<'t> {
    text: &'t str,
    rest: &'t str,
    out: String,
    open: Vec<(usize, Opened, Begun)>,
    begun: Begun,
    /// Whether a value must come next.
    wants_value: bool,
}

impl<'t> Rewriter<'t> {
    fn new(text: &'t str) -> Rewriter<'t> {
        Rewriter {
            text,
            rest: text,
            out: String::with_capacity(text.len() * 2),
            open: Vec::new(),
            begun: Begun::default(),
            wants_value: true,
        }
    }

    fn run(mut self) -> Result<String, Wrong> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str, inputs: &[f64]) -> f64 {
        let expression = Expression::parse(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.message));
        expression.evaluate(inputs)
    }

    fn wrong(text: &str) -> String {
        let Wrong { message, suggestion } = Expression::parse(text).unwrap_err();
        format!("{message} ({})", suggestion.unwrap_or_default())
    }

    #[test]
    fn arithmetic_is_as_at_school() {
        for (text, expected) in [
            ("a - 1 + 2", 5.0),
            ("a - (1 + 2)", 1.0),
            ("2 * a / 8 * 4", 4.0),
            ("2 / 4 * a", 2.0),
            ("a / -2", -2.0),
            ("-a * 2", -8.0),
            ("2 ^ -1 * a", 2.0),
            ("-(a ^ 2)", -16.0),
            ("1.5e3 + a * 1E-1", 1500.4),
            ("max(0, min(100, a * 50))", 100.0),
            ("min(a, 7) - max(1, 2) * 3", -2.0),
            ("sqrt ( a ) + {a}", 6.0),
            ("ln(exp(a))", 4.0),
            ("round(10 * sin(pi / 2 + 0 * a))", 10.0),
        ] {
            assert!((value(text, &[4.0]) - expected).abs() < 1e-12, "{text} = {}", value(text, &[4.0]));
        }
        assert!(!value("1 / (a - 4)", &[4.0]).is_finite());
        let mixed = Expression::parse("voltage * {phase-1.current} + voltage").unwrap();
        assert_eq!(mixed.inputs(), ["phase-1.current", "voltage"]);
        assert_eq!(mixed.evaluate(&[2.0, 230.0]), 690.0);
    }

    #[test]
    fn the_dew_point_can_be_written() {
        // Magnus formula over water, with the constants of WMO-No. 8 (2018), annex 4.B.
        let text = "243.12 * (ln(humidity / 100) + 17.62 * temperature / (243.12 + temperature)) \
             / (17.62 - (ln(humidity / 100) + 17.62 * temperature / (243.12 + temperature)))";
        assert!((value(text, &[50.0, 20.0]) - 9.26).abs() < 0.01);
        assert!((value(text, &[100.0, 12.0]) - 12.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_column() {
        for (text, told) in [
            ("", "column 1: ends where a value is expected"),
            ("a +", "column 4: ends"),
            ("a b", "column 3: expected an operator before b"),
            ("a * (b + 1", "the parenthesis at column 5 is not closed"),
            ("a)", "column 2: this parenthesis was not opened"),
            ("2 * lnn(a)", "column 5: there is no function lnn (did you mean `ln`?)"),
            ("sum(a)", "known: abs"),
            ("max(a)", "column 6: max takes two values"),
            ("ln(a, b)", "column 5: only atan2, max, min take two values"),
            ("a, b", "column 2: only"),
            ("a ** b", "column 4: expected a value before *"),
            ("a % b", "column 3: '%' means nothing here"),
            ("-a ^ 2", "column 4: what is raised here is not clear (put parentheses"),
            ("a ^ b ^ c", "column 7: what is raised"),
            ("{a", "column 1: the brace is not closed"),
            ("1e999 * a", "column 1: 1e999 is out of range"),
            ("()", "column 2: expected a value before )"),
            ("1 + 2", "over no metric"),
            ("ä + a", "column 1: 'ä'"),
            ("°C * ä", "column 1"),
        ] {
            assert!(wrong(text).contains(told), "{text}: {}", wrong(text));
        }
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        assert!(wrong(&deep).contains("column 33: parentheses are nested deeper than 32"));
        assert!(wrong(&"a+".repeat(600)).contains("1024 are the most"));
    }

    /// A plain reference: the tree, evaluated by recursion.
    #[derive(Clone, Debug)]
    enum Tree {
        Number(f64),
        Input(usize),
        Minus(Box<Tree>),
        One(&'static str, Box<Tree>),
        Two(&'static str, Box<Tree>, Box<Tree>),
        Infix(char, Box<Tree>, Box<Tree>),
    }

    impl Tree {
        fn value(&self, inputs: &[f64]) -> f64 {
            match self {
                Tree::Number(number) => *number,
                Tree::Input(index) => inputs[*index],
                Tree::Minus(a) => -a.value(inputs),
                Tree::One("abs", a) => a.value(inputs).abs(),
                Tree::One("floor", a) => a.value(inputs).floor(),
                Tree::One(_, a) => a.value(inputs).exp(),
                Tree::Two("max", a, b) => a.value(inputs).max(b.value(inputs)),
                Tree::Two(_, a, b) => a.value(inputs).min(b.value(inputs)),
                Tree::Infix('+', a, b) => a.value(inputs) + b.value(inputs),
                Tree::Infix('-', a, b) => a.value(inputs) - b.value(inputs),
                Tree::Infix('*', a, b) => a.value(inputs) * b.value(inputs),
                Tree::Infix('/', a, b) => a.value(inputs) / b.value(inputs),
                Tree::Infix(_, a, b) => a.value(inputs).powf(b.value(inputs)),
            }
        }

        fn precedence(&self) -> u8 {
            match self {
                Tree::Infix('+' | '-', ..) => 1,
                Tree::Infix('*' | '/', ..) => 2,
                Tree::Infix(..) => 3,
                Tree::Minus(_) => 4,
                _ => 5,
            }
        }

        /// With no more parentheses than are needed.
        fn text(&self) -> String {
            let within = |tree: &Tree, least: u8| {
                let text = tree.text();
                if tree.precedence() < least { format!("({text})") } else { text }
            };
            match self {
                Tree::Number(number) => format!("{number:e}"),
                Tree::Input(index) => ["a", "b", "c"][*index].to_owned(),
                Tree::Minus(a) => format!("-{}", within(a, 5)),
                Tree::One(name, a) => format!("{name}({})", a.text()),
                Tree::Two(name, a, b) => format!("{name}({}, {})", a.text(), b.text()),
                Tree::Infix('^', a, b) => format!("{}^{}", within(a, 5), within(b, 4)),
                Tree::Infix(operator, a, b) => {
                    let own = self.precedence();
                    format!("{} {operator} {}", within(a, own), within(b, own + 1))
                }
            }
        }
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (0.0_f64..1e4).prop_map(Tree::Number),
            (-9_i32..9).prop_map(|exponent| Tree::Number(10_f64.powi(exponent))),
            (0_usize..3).prop_map(Tree::Input),
        ];
        leaf.prop_recursive(5, 40, 2, |inner| {
            let boxed = || inner.clone().prop_map(Box::new);
            prop_oneof![
                boxed().prop_map(Tree::Minus),
                (prop::sample::select(vec!["abs", "floor", "exp"]), boxed()).prop_map(|(name, a)| Tree::One(name, a)),
                (prop::sample::select(vec!["max", "min"]), boxed(), boxed())
                    .prop_map(|(name, a, b)| Tree::Two(name, a, b)),
                (prop::sample::select(vec!['+', '-', '*', '/', '^']), boxed(), boxed())
                    .prop_map(|(operator, a, b)| Tree::Infix(operator, a, b)),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_those_of_a_plain_reference(tree in tree(), inputs in [-50.0_f64..50.0, -50.0..50.0, 0.1..9.0]) {
            // Over all three, whatever the tree is over.
            let text = format!("{} + 0 * (a + b + c)", Tree::Infix('+', Box::new(tree.clone()), Box::new(Tree::Number(0.0))).text());
            prop_assume!(text.len() <= MAX_TEXT);
            let expected = tree.value(&inputs);
            let found = value(&text, &inputs);
            let same = found.to_bits() == expected.to_bits() || found == expected || (found.is_nan() && expected.is_nan());
            prop_assert!(same, "{} = {}, not {}", text, found, expected);
        }

        #[test]
        fn no_text_panics(text in "[a-c0-9 .,()^*/+{}e-]{0,40}", scraps in "(max|min|ln|\\(|\\)|,|a|1|\\+|-|\\^| ){0,20}") {
            for text in [text, scraps] {
                if let Ok(expression) = Expression::parse(&text) {
                    expression.evaluate(&vec![1.5; expression.inputs().len()]);
                }
            }
        }
    }
}
