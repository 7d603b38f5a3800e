//! Text to graph. Hand-written: the grammar is a dozen rules and errors must point at a line and a column.

use super::VERSION;
use crate::attr::{Attr, AttrMap, OpSet};
use crate::diag::{Code, Diagnostic, Result};
use crate::graph::{Graph, Loc, Stage, ValueId};
use std::collections::BTreeMap;

/// Attributes nested deeper than this are refused; real ones have three levels.
const MAX_DEPTH: usize = 32;

/// The stage keyword that opens a text, if there is one.
pub fn stage_of(text: &str) -> Option<&str> {
    let line = text.lines().map(|line| line.split(';').next().unwrap_or("").trim()).find(|line| !line.is_empty())?;
    line.split_whitespace().next()
}

/// Reads one graph of stage `S`.
///
/// # Errors
/// [`Code::IrSyntax`] with line and column; [`Code::IrInvalid`] where an operation does not type-check.
pub fn parse<S: Stage>(text: &str) -> Result<Graph<S>> {
    let mut parser = Parser { text, at: 0 };
    let keyword = parser.word()?;
    if keyword != S::NAME {
        return Err(parser.error(format!("expected a `{}` graph, found `{keyword}`", S::NAME)));
    }
    parser.expect('@')?;
    let name = parser.word()?;
    let version = parser.word()?;
    if version != "version" {
        return Err(parser.error("expected `version` and a number"));
    }
    let version = parser.word()?;
    if version.parse() != Ok(VERSION) {
        return Err(
            parser.error(format!("version {version} of the text form is not known; this Tacit reads {VERSION}"))
        );
    }
    parser.expect('{')?;
    let mut graph = Graph::<S>::new(name);
    let mut names: BTreeMap<String, ValueId> = BTreeMap::new();
    loop {
        match parser.peek() {
            Some('}') => {
                parser.expect('}')?;
                break;
            }
            Some('%') => parser.node(&mut graph, &mut names)?,
            Some(_) => {
                let word = parser.word()?;
                if word != "output" {
                    return Err(parser.error(format!("expected a value, `output` or `}}`, found `{word}`")));
                }
                let name = parser.string()?;
                parser.expect('=')?;
                let value = parser.value_name()?;
                let id = names.get(&value).ok_or_else(|| parser.error(format!("{value} is not defined")))?;
                graph.output(name, *id);
            }
            None => return Err(parser.error("the graph is not closed with `}`")),
        }
    }
    if parser.peek().is_some() {
        return Err(parser.error("text after the graph"));
    }
    Ok(graph)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let column = self.text[..self.at].chars().rev().take_while(|&c| c != '\n').count() + 1;
        Diagnostic::new(Code::IrSyntax, message).at(format!("line {}, column {column}", self.line()))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with(';') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest().chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) {
            return Ok(());
        }
        let found = self.peek().map_or("the end of the text".to_owned(), |found| format!("`{found}`"));
        Err(self.error(format!("expected `{c}`, found {found}")))
    }

    /// A run of characters that cannot be mistaken for punctuation.
    fn word(&mut self) -> Result<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "{}[]=,:;\"%@|".contains(c)).unwrap_or(rest.len());
        if end == 0 {
            let found = rest.chars().next().map_or("the end of the text".to_owned(), |c| format!("`{c}`"));
            return Err(self.error(format!("expected a word, found {found}")));
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn value_name(&mut self) -> Result<String> {
        self.expect('%')?;
        Ok(format!("%{}", self.word()?))
    }

    fn string(&mut self) -> Result<String> {
        self.expect('"')?;
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(out);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('u') => {
                        let digits: String = chars.by_ref().map(|(_, c)| c).skip(1).take_while(|&c| c != '}').collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        out.push(code.ok_or_else(|| self.error("a malformed \\u{..} escape"))?);
                    }
                    Some(c) => out.push(c),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(self.error("a string is not closed"))
    }

    fn node<S: Stage>(&mut self, graph: &mut Graph<S>, names: &mut BTreeMap<String, ValueId>) -> Result<()> {
        let line = self.line();
        let name = self.value_name()?;
        if names.contains_key(&name) {
            return Err(self.error(format!("{name} is defined twice")));
        }
        self.expect('=')?;
        let op = self.word()?;
        let mut operands = Vec::new();
        while self.peek() == Some('%') {
            let operand = self.value_name()?;
            let id =
                names.get(&operand).ok_or_else(|| self.error(format!("{operand} is not defined before its use")))?;
            operands.push(*id);
            if !self.eat(',') {
                break;
            }
        }
        let attrs = if self.peek() == Some('{') { self.record(0)? } else { Vec::new() };
        let op = S::Op::from_parts(op, AttrMap(attrs)).map_err(|why| self.error(why.to_string()))?;
        let declared = if self.eat(':') { Some(self.ty::<S>()?) } else { None };
        let id = graph
            .push(op, operands, declared, Loc::Line(line))
            .map_err(|why| Diagnostic::new(Code::IrInvalid, format!("{name}: {why}")).at(format!("line {line}")))?;
        names.insert(name, id);
        Ok(())
    }

    /// A type reaches to the end of the line or to a comment.
    fn ty<S: Stage>(&mut self) -> Result<S::Type> {
        let rest = self.rest();
        let end = rest.find(['\n', ';']).unwrap_or(rest.len());
        let ty = rest[..end].trim().parse().map_err(|why: String| self.error(why))?;
        self.at += end;
        Ok(ty)
    }

    fn record(&mut self, depth: usize) -> Result<Vec<(String, Attr)>> {
        self.expect('{')?;
        let mut out: Vec<(String, Attr)> = Vec::new();
        while !self.eat('}') {
            let key = self.word()?.to_owned();
            if out.iter().any(|(known, _)| *known == key) {
                return Err(self.error(format!("attribute `{key}` is given twice")));
            }
            self.expect('=')?;
            let attr = self.attr(depth + 1)?;
            let block = matches!(attr, Attr::Lines(_));
            out.push((key, attr));
            if !self.eat(',') && !block {
                self.expect('}')?;
                break;
            }
        }
        Ok(out)
    }

    fn attr(&mut self, depth: usize) -> Result<Attr> {
        if depth > MAX_DEPTH {
            return Err(self.error("attributes are nested too deeply"));
        }
        match self.peek() {
            Some('"') => self.string().map(Attr::Str),
            Some('{') => self.record(depth).map(Attr::Record),
            Some('|') => Ok(Attr::Lines(self.lines())),
            Some('[') => self.list(|parser| parser.attr(depth + 1)).map(Attr::List),
            _ => {
                let word = self.word()?;
                if self.rest().starts_with('[') {
                    return self.typed_list(word);
                }
                self.scalar(word)
            }
        }
    }

    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let Some(line) = trimmed.strip_prefix('|') else {
                return lines;
            };
            let end = line.find('\n').unwrap_or(line.len());
            lines.push(line[..end].trim().to_owned());
            self.at += rest.len() - line.len() + end;
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect('[')?;
        let mut items = Vec::new();
        while !self.eat(']') {
            items.push(item(self)?);
            if !self.eat(',') {
                self.expect(']')?;
                break;
            }
        }
        Ok(items)
    }

    fn typed_list(&mut self, prefix: &str) -> Result<Attr> {
        match prefix {
            "i64" => self.list(Self::number).map(Attr::Ints),
            "f32" => self.list(Self::number).map(Attr::F32s),
            "f64" => self.list(Self::number).map(Attr::F64s),
            "str" => self.list(Self::string).map(Attr::Strs),
            other => Err(self.error(format!("`{other}` is not i64, f32, f64 or str"))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let word = self.word()?;
        word.parse().map_err(|_| self.error(format!("`{word}` is not a number of the list's type")))
    }

    fn scalar(&self, word: &str) -> Result<Attr> {
        if word == "true" || word == "false" {
            return Ok(Attr::Bool(word == "true"));
        }
        if let Ok(value) = word.parse() {
            return Ok(Attr::Int(value));
        }
        if let Some(value) = word.strip_suffix('f').and_then(|digits| digits.parse().ok()) {
            return Ok(Attr::F32(value));
        }
        word.parse().map(Attr::F64).map_err(|_| self.error(format!("`{word}` is not a value")))
    }
}
