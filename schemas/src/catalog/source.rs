//! From the text of a file to its statements, each with its own text and place.
//!
//! A file is cut into statements before it is parsed, so one syntax error does not hide the errors behind it.

use datafusion::sql::sqlparser::{
    ast::Statement,
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer},
};

use crate::{
    definition::{DefinitionError, Problem},
    sql_error,
};

/// A statement that parses.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The file it stands in.
    pub file: &'a str,
    /// Its text, without the semicolon.
    pub sql: &'a str,
    /// Where it begins.
    pub start: Location,
    /// The statement.
    pub statement: Statement,
    /// Its tokens, without white space and comments.
    tokens: Vec<TokenWithSpan>,
}

impl<'a> Source<'a> {
    /// The statements of a file; those that do not parse become `errors`.
    pub fn read(file: &'a str, text: &'a str, errors: &mut Vec<DefinitionError>) -> Vec<Self> {
        let tokens = match Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() {
            Ok(tokens) => tokens,
            Err(error) => {
                errors.push(Problem::at(error.location, error.message).in_file(file, Location::new(1, 1)));
                return Vec::new();
            }
        };
        let lines = line_starts(text);
        let mut statements = Vec::new();
        for tokens in tokens.split(|token| token.token == Token::SemiColon) {
            let tokens: Vec<_> = tokens.iter().filter(|token| !is_space(&token.token)).cloned().collect();
            let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
            let start = first.span.start;
            let sql = &text[offset(text, &lines, start)..offset(text, &lines, last.span.end)];
            match parse(&tokens) {
                Ok(statement) => statements.push(Self { file, sql, start, statement, tokens }),
                Err(problem) => errors.push(problem.in_file(file, start)),
            }
        }
        statements
    }

    /// Where the token behind the one at `location` begins.
    pub fn behind(&self, location: Location) -> Location {
        let behind = self.tokens.iter().find(|token| token.span.start > location);
        behind.map_or(location, |token| token.span.start)
    }

    /// Where the word (in upper case) stands at or behind `from`; `from` itself if it does not.
    pub fn word(&self, word: &str, from: Location) -> Location {
        let is_word = |token: &Token| matches!(token, Token::Word(found) if found.value.eq_ignore_ascii_case(word));
        let found = self.tokens.iter().find(|token| token.span.start >= from && is_word(&token.token));
        found.map_or(from, |token| token.span.start)
    }
}

fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// Parses the tokens of one statement.
fn parse(tokens: &[TokenWithSpan]) -> Result<Statement, Problem> {
    let end = tokens.last().map_or(Span::empty(), |token| token.span).end;
    let parsed = Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(tokens.to_vec()).parse_statements();
    match parsed.map(|mut statements| (statements.pop(), statements.is_empty())) {
        Ok((Some(statement), true)) => Ok(statement),
        Ok(_) => Err(Problem::at(Location::empty(), "expected one statement")),
        Err(error) => {
            let (message, location) = sql_error::syntax(&error);
            // The statement as a whole is nested too deeply; it just stops where something is lacking.
            let unplaced = if matches!(error, ParserError::RecursionLimitExceeded) { Location::empty() } else { end };
            Err(Problem::at(location.unwrap_or(unplaced), message))
        }
    }
}

/// The byte at which each line begins.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The byte that a location stands at: the parser counts lines and characters from 1.
fn offset(text: &str, lines: &[usize], location: Location) -> usize {
    let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
    let start = lines.get(index(location.line)).copied().unwrap_or(text.len());
    text[start..].char_indices().nth(index(location.column)).map_or(text.len(), |(at, _)| start + at)
}
