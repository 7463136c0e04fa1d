//! Documents, good and hostile, drawn from bytes: from a seed or from a fuzzer.
//!
//! The same bytes give the same documents, and fewer bytes give simpler ones, so that a failure can be cut down. It
//! deliberately does not know which documents are good: that is the model's to say.

/// Draws choices from bytes; when they run out, every choice is the first.
pub(crate) struct Dice<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Dice<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == 0
    }

    pub(crate) fn below(&mut self, sides: usize) -> usize {
        let byte = |dice: &mut Self| dice.bytes.next().copied().map_or(0, usize::from);
        let value = if sides > 256 { byte(self) << 8 | byte(self) } else { byte(self) };
        value % sides
    }

    fn pick<'b>(&mut self, options: &[&'b str]) -> &'b str {
        options[self.below(options.len())]
    }
}

/// A payload: mostly an object, sometimes hurt, seldom a tombstone.
pub(crate) fn payload(dice: &mut Dice<'_>) -> Option<Vec<u8>> {
    let mut document = match dice.below(24) {
        20 => return None,
        21 => value(dice, 0).into_bytes(),
        22 => nest(dice).into_bytes(),
        23 => (0..dice.below(20)).map(|_| dice.below(256) as u8).collect(),
        _ => object(dice, 0).into_bytes(),
    };
    if dice.below(4) == 3 {
        hurt(dice, &mut document);
    }
    Some(document)
}

fn hurt(dice: &mut Dice<'_>, document: &mut Vec<u8>) {
    let at = dice.below(document.len().max(1));
    match dice.below(5) {
        0 => document.truncate(at),
        1 if !document.is_empty() => drop(document.remove(at)),
        2 if !document.is_empty() => document[at] = dice.below(256) as u8,
        3 => document.extend_from_slice(dice.pick(&[" ", "\n", "x", "{}", ",", "\0", "\u{feff}"]).as_bytes()),
        _ => {
            let byte = *dice
                .pick(&["\"", "\\", "{", "}", "[", ",", ":", "0", "\n", "\x01", "\x7f"])
                .as_bytes()
                .first()
                .unwrap();
            document.insert(at.min(document.len()), byte);
        }
    }
}

/// The columns of [`super::fields`], in another spelling, or keys that nobody knows.
const KEYS: [&str; 32] = [
    "flag",
    "tiny",
    "small",
    "int",
    "long",
    "byte",
    "word",
    "uint",
    "ulong",
    "single",
    "double",
    "text",
    "wide",
    "day",
    "sec",
    "milli",
    "micro",
    "nano",
    "price",
    "blob",
    "must",
    "t\\u0065xt",
    "\\u006cong",
    "unknown",
    "Text",
    "",
    "tex",
    "texts",
    "é",
    "\\ud800",
    "a key that is longer than any word",
    "\\\"",
];

/// Base64, and what only looks like it.
const BASE64: [&str; 10] = ["", "YQ==", "YWI=", "YWJj", "\\/+8=", "/+8=", "YQ", "YR==", "Y Q==", "YQ==\\n"];

fn object(dice: &mut Dice<'_>, depth: usize) -> String {
    let style = dice.below(3);
    let mut members: Vec<String> = (0..dice.below(12)).map(|_| member(dice, style, depth)).collect();
    if depth == 0 && dice.below(8) != 7 {
        members.push(format!("\"must\":{}", dice.below(100)));
    }
    let comma = [",", ", ", " ,\n\t"][style];
    format!("{}{{{}}}", ["", "", " \r\n"][style], members.join(comma))
}

/// A key with, more often than not, a value that fits.
fn member(dice: &mut Dice<'_>, style: usize, depth: usize) -> String {
    let key = dice.pick(&KEYS);
    let fitting = dice.below(8) != 7;
    let value = match key {
        _ if !fitting => value(dice, depth),
        "flag" => dice.pick(&["true", "false", "null"]).to_owned(),
        "text" | "wide" | "t\\u0065xt" => string(dice),
        "day" => format!("\"{}\"", date(dice)),
        "sec" | "milli" | "micro" | "nano" => moment(dice),
        "price" => match dice.below(3) {
            0 => whole(dice),
            1 => number(dice),
            _ => format!("{}.{:03}", dice.below(100), dice.below(1_000)),
        },
        "blob" => format!("\"{}\"", dice.pick(&BASE64)),
        "tiny" | "byte" => dice.below(128).to_string(),
        "single" | "double" => number(dice),
        "small" | "int" | "long" | "word" | "uint" | "ulong" | "must" | "\\u006cong" => whole(dice),
        _ => value(dice, depth),
    };
    format!("\"{key}\"{}{value}", [":", ": ", "\t: \n"][style])
}

fn value(dice: &mut Dice<'_>, depth: usize) -> String {
    match dice.below(12) {
        0 | 1 => whole(dice),
        2 | 3 => number(dice),
        4 | 5 => string(dice),
        6 => moment(dice),
        7 => dice.pick(&["true", "false", "null"]).to_owned(),
        8 => dice
            .pick(&[
                "NaN",
                "Infinity",
                "-Infinity",
                "nul",
                "True",
                "'a'",
                "+1",
                ".5",
                "1.",
                "-",
                "01",
                "1e",
                "0x1",
                "",
            ])
            .to_owned(),
        9 if depth < 3 => object(dice, depth + 1),
        10 if depth < 3 => {
            format!("[{}]", (0..dice.below(4)).map(|_| value(dice, depth + 1)).collect::<Vec<_>>().join(", "))
        }
        _ => dice.below(1_000).to_string(),
    }
}

/// Objects and arrays about as deep as is allowed.
fn nest(dice: &mut Dice<'_>) -> String {
    let depth = 120 + dice.below(16);
    let (open, close) = if dice.below(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
    format!("{{\"must\":1,\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth))
}

fn whole(dice: &mut Dice<'_>) -> String {
    let edges = [
        "0",
        "-0",
        "127",
        "128",
        "-128",
        "-129",
        "255",
        "256",
        "32767",
        "-32769",
        "65535",
        "65536",
        "2147483647",
        "2147483648",
        "-2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "1.0",
        "1e3",
        "15e-1",
        "10e-1",
        "1E+2",
        "100000000000000000000e-18",
        "0e999999999999999999999",
        "1e400",
        "1e-400",
        "0.0",
        "12345678",
        "123456789",
        "1234567890123456",
        "12345678901234567890123",
    ];
    match dice.below(3) {
        0 => dice.below(128).to_string(),
        1 => dice.below(60_000).to_string(),
        _ => dice.pick(&edges).to_owned(),
    }
}

fn number(dice: &mut Dice<'_>) -> String {
    let edges = [
        "1e308",
        "1.8e308",
        "1e309",
        "-1e309",
        "5e-324",
        "1e-400",
        "3.4028235e38",
        "3.4028236e38",
        "1e39",
        "1e-46",
        "9007199254740993",
        "0.1",
        "0.30000000000000004",
        "-0.0",
        "1e22",
        "1e23",
        "16777217",
        "0.000001e-5",
        "123456789.123456789123456789",
        "7.038531e-26",
        "1.00000017881393432617187499",
        "1e-22",
    ];
    let digits =
        |dice: &mut Dice<'_>| (0..=dice.below(20)).map(|_| dice.below(10).to_string()).collect::<String>();
    match dice.below(4) {
        0 => format!("{}.{}", dice.below(100), dice.below(100)),
        1 => format!("-{}.{}", dice.below(1_000), digits(dice)),
        2 => format!("1{}{}{}", digits(dice), dice.pick(&["e", "E", "e-", "e+", ".5e"]), dice.below(45)),
        _ => dice.pick(&edges).to_owned(),
    }
}

fn string(dice: &mut Dice<'_>) -> String {
    let parts = [
        "a",
        "dev-0001",
        "a somewhat longer text",
        "é",
        "😀",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u0041",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\ud800",
        "\\udc00\\ud800",
        "\\u12",
        "\\x",
        "\t",
        "\u{7f}",
        "\\b\\f\\r\\t",
        "{}",
        ",",
        ":",
        "\u{2028}",
    ];
    let count = dice.below(4);
    let parts: String =
        (0..count).map(|_| if dice.below(3) == 0 { dice.pick(&parts) } else { "plain" }).collect();
    format!("\"{parts}\"")
}

fn date(dice: &mut Dice<'_>) -> String {
    let year = ["1970", "2024", "1969", "0000", "9999", "1900", "2000", "2262", "1677"][dice.below(9)];
    format!("{year}-{:02}-{:02}", 1 + dice.below(12), 1 + dice.below(29))
}

fn moment(dice: &mut Dice<'_>) -> String {
    let edges = [
        "2262-04-11T23:47:16.854775807",
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224192",
        "1677-09-21T00:12:43.145224191",
        "2024-01-01T24:00:00",
        "2024-01-01T23:59:60Z",
        "2024-02-30",
        "yesterday",
        "",
        "2024-01-01T12",
        "2024-01-01T12:00:00.",
        "2024-01-01Z",
        "2024-01-01T12:00:00+24:00",
        "+024-01-01",
        "2024-1-1",
        "2024-01-01T12:00:00 Z",
        "2024-01-01T12:00\\u003a00",
        "2024-01-01T1é:00:00",
    ];
    if dice.below(4) == 0 {
        return whole(dice);
    }
    if dice.below(4) == 3 {
        return format!("\"{}\"", dice.pick(&edges));
    }
    let zone = dice.pick(&["", "Z", "z", "+02:00", "-0530", "+23", "-00:00", "+2", "+02:0"]);
    let fraction =
        dice.pick(&["", ".5", ".123", ".123456", ".123456789", ".1234567899", ".000000000000000001"]);
    let clock = format!("{:02}:{:02}:{:02}", dice.below(24), dice.below(60), dice.below(60));
    match dice.below(3) {
        0 => format!("\"{}\"", date(dice)),
        1 => format!("\"{} {}{zone}\"", date(dice), &clock[..5]),
        _ => format!("\"{}T{clock}{fraction}{zone}\"", date(dice)),
    }
}
