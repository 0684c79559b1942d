use crate::names;
use serde_json::{Value, json};

/// One way in which a call is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The system call, as the kernel calls it.
    pub call: String,
    /// All of them have to hold.
    pub conditions: Vec<Condition>,
    /// What needs it.
    pub why: String,
}

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The argument, from 0.
    pub argument: u8,
    /// The bits that are compared; all if there is none.
    pub mask: Option<u32>,
    /// What they have to be.
    pub value: u32,
    /// All 64 bits have to be.
    pub pointer: bool,
}

/// System calls have so many arguments.
const ARGUMENTS: u8 = 6;

impl Rule {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let (rule, why) = line.split_once('#').unwrap_or((line, ""));
        let why = why.trim().to_owned();
        if why.is_empty() {
            return Err("it doesn't say why it is there".into());
        }
        let rule = rule.trim();
        let (call, conditions) = rule.split_once(char::is_whitespace).unwrap_or((rule, ""));
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if call.is_empty() || !call.chars().all(named) {
            return Err(format!("'{call}' is no system call"));
        }
        let conditions = match conditions.trim() {
            "" => Vec::new(),
            conditions => conditions.split("&&").map(Condition::parse).collect::<Result<_, _>>()?,
        };
        Ok(Self { call: call.to_owned(), conditions, why })
    }

    /// The rule in numbers.
    pub(crate) fn canonical(&self) -> String {
        let mut line = self.call.clone();
        for Condition { argument, mask, value, pointer } in &self.conditions {
            let mask = mask.map_or(String::new(), |mask| format!("&{mask:#x}"));
            let pointer = if *pointer { "p" } else { "" };
            line.push_str(&format!(" {argument}{mask}={value:#x}{pointer}"));
        }
        line.push('\n');
        line
    }

    /// The rule as the compiler wants it.
    pub(crate) fn for_compiler(&self) -> Value {
        let conditions: Vec<Value> = self.conditions.iter().map(|it| it.for_compiler()).collect();
        if conditions.is_empty() {
            json!({ "syscall": self.call })
        } else {
            json!({ "syscall": self.call, "args": conditions })
        }
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is no condition: argN [& MASK] == VALUE", text.trim());
        let (argument, value) = text.split_once("==").ok_or_else(wrong)?;
        let (argument, mask) = match argument.split_once('&') {
            Some((argument, mask)) => (argument, Some(number(mask)?)),
            None => (argument, None),
        };
        let argument = argument.trim().strip_prefix("arg").ok_or_else(wrong)?;
        let argument = argument.parse().ok().filter(|number| *number < ARGUMENTS);
        let argument = argument.ok_or_else(wrong)?;
        let pointer = value.trim() == names::NULL;
        let value = if pointer { 0 } else { number(value)? };
        if mask.is_some_and(|mask| pointer || value & !mask != 0) {
            return Err(format!("'{}' never holds", text.trim()));
        }
        Ok(Self { argument, mask, value, pointer })
    }

    fn for_compiler(self) -> Value {
        let operator = match self.mask {
            Some(mask) => json!({ "masked_eq": mask }),
            None => json!("eq"),
        };
        json!({
            "index": self.argument,
            "type": if self.pointer { "qword" } else { "dword" },
            "op": operator,
            "val": self.value,
        })
    }
}

/// Reads numbers and names, joined by `|`.
fn number(text: &str) -> Result<u32, String> {
    let mut sum = 0;
    for part in text.split('|').map(str::trim) {
        let number = match part.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => part.parse().ok().or_else(|| names::value(part)),
        };
        sum |= number.ok_or_else(|| format!("'{part}' is neither a number nor a known name"))?;
    }
    Ok(sum)
}
