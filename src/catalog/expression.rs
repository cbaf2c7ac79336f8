//! Arithmetic over a device's metrics, as `[[derived]]` has it.
//!
//! The crate `exmex` evaluates; the notation is checked here first and rewritten for it, since it knows neither `1e-3` nor a call
//! within a call's second argument, names no place in its errors, and lets a minus bind tighter than `^`.

mod notation;

use std::fmt;
use std::sync::Arc;

use exmex::{BinOp, Express, FlatEx, MakeOperators, Operator, ops_factory};
use serde::{Deserialize, Serialize};

use crate::config::fault::Wrong;
use notation::Rewriter;

/// Longest expression, bytes.
const MAX_TEXT: usize = 1024;
/// Most metrics that one expression is over.
pub const MAX_INPUTS: usize = 16;

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
