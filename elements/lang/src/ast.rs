//! What the parser makes of a file: the grammar's shape, nothing decided.

use crate::source::Span;

/// A name and its place.
#[derive(Clone, Debug)]
pub(crate) struct Ident {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One thing at the top of a file.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Use { path: Ident, alias: Option<Ident> },
    Proto { path: Ident },
    Service { name: Ident, entries: Vec<(Ident, Expr)> },
    Chain { name: Ident, links: Vec<Link> },
    Rule(Rule),
    Element(Element),
}

/// `frontend -> catalog: A - B`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) every: bool,
    /// Empty is `*`.
    pub(crate) sources: Vec<Ident>,
    /// None is `*`.
    pub(crate) destination: Option<Ident>,
    pub(crate) rpc: Option<Rpc>,
    pub(crate) links: Vec<Link>,
    pub(crate) span: Span,
}

/// `pkg.Service/Method`.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) service: String,
    /// None is `*`.
    pub(crate) method: Option<String>,
}

/// One link of a chain.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: Ident,
    /// None if no parentheses were written.
    pub(crate) args: Option<Vec<Arg>>,
    pub(crate) when: Option<Expr>,
    pub(crate) dry: Option<Span>,
    /// What stands before it is `|`.
    pub(crate) wire: Option<Span>,
    /// What the names of its file begin with, `shop.` where it is used as `shop`.
    pub(crate) scope: String,
    /// Name and arguments.
    pub(crate) span: Span,
}

/// An argument of a call or a link.
#[derive(Clone, Debug)]
pub(crate) struct Arg {
    pub(crate) name: Option<Ident>,
    pub(crate) value: Expr,
}

/// An element.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) name: Ident,
    pub(crate) params: Vec<Param>,
    pub(crate) states: Vec<State>,
    pub(crate) handlers: Vec<Handler>,
}

/// A parameter of an element.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) name: Ident,
    pub(crate) is_call: bool,
    pub(crate) ty: TypeExpr,
    pub(crate) default: Option<Expr>,
}

/// A type as written.
#[derive(Clone, Debug)]
pub(crate) struct TypeExpr {
    pub(crate) name: String,
    pub(crate) args: Vec<TypeExpr>,
    /// Followed by `?`.
    pub(crate) optional: bool,
    pub(crate) span: Span,
}

/// Where state lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    Call,
    Shard,
    Node,
}

/// A state declaration.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) scope: Scope,
    pub(crate) name: Ident,
    pub(crate) ty: Option<TypeExpr>,
    pub(crate) options: Vec<(Ident, Option<Expr>)>,
    pub(crate) init: Option<Expr>,
}

/// Which handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandlerKind {
    Request,
    Response,
    RequestMessage,
    ResponseMessage,
}

/// A handler.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) kind: HandlerKind,
    pub(crate) body: Block,
    pub(crate) span: Span,
}

/// Statements between braces.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) stmts: Vec<Stmt>,
    pub(crate) span: Span,
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) enum Stmt {
    Let { name: Ident, value: Expr, or_else: Option<Block> },
    Assign { place: Expr, op: AssignOp, value: Expr },
    For { name: Ident, list: Expr, body: Block, span: Span },
    Return(Span),
    Expr(Expr),
}

/// How an assignment changes its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AssignOp {
    Set,
    Add,
    Sub,
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: Box<ExprKind>,
    pub(crate) span: Span,
    /// The longest way down to a leaf: what every later recursion is bounded by.
    pub(crate) depth: u16,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Int(u64),
    Float(f64),
    Duration(i64),
    Rate(f64),
    Bool(bool),
    Str(String),
    Interp(Vec<Part>),
    None,
    Name(String),
    Field {
        of: Expr,
        name: Ident,
        optional: bool,
    },
    Index {
        of: Expr,
        key: Expr,
    },
    Call {
        of: Expr,
        args: Vec<Arg>,
    },
    Lambda {
        param: Ident,
        body: Expr,
    },
    Unary {
        op: UnOp,
        of: Expr,
    },
    Binary {
        op: BinOp,
        left: Expr,
        right: Expr,
    },
    If {
        cond: Expr,
        then: Block,
        or_else: Option<Block>,
    },
    Match {
        of: Expr,
        arms: Vec<Arm>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// A message of the proto.
    Message(Ident, Vec<(Ident, Expr)>),
    /// A call of another service; its parts are read over.
    Ask,
    /// Something the parser has already complained about.
    Broken,
}

/// A piece of an interpolated string.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    Expr(Expr),
}

/// `pattern => block`.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) pattern: Pattern,
    pub(crate) body: Block,
}

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Some(Ident),
    None(Span),
    Any(Span),
    /// A literal or a name of the scrutinee's type.
    Value(Expr),
}

/// Prefix operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnOp {
    Not,
    Neg,
}

/// Infix operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BinOp {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Coalesce,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    Eq,
    Ne,
    And,
    Or,
}

impl BinOp {
    /// As written.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Coalesce => "??",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::In => "in",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::And => "&&",
            Self::Or => "||",
        }
    }

    /// Operators bind in this order, 0 loosest.
    pub(crate) fn level(self) -> u8 {
        match self {
            Self::Or => 0,
            Self::And => 1,
            Self::Eq | Self::Ne => 2,
            Self::Lt | Self::Le | Self::Gt | Self::Ge | Self::In => 3,
            Self::Coalesce => 4,
            Self::Add | Self::Sub => 5,
            Self::Mul | Self::Div | Self::Rem => 6,
        }
    }
}

impl Block {
    /// How deep its expressions and inner blocks go.
    pub(crate) fn depth(&self) -> u16 {
        self.stmts.iter().map(Stmt::depth).max().unwrap_or(0)
    }
}

impl Stmt {
    fn depth(&self) -> u16 {
        let inner = match self {
            Self::Let { value, or_else, .. } => value.depth.max(or_else.as_ref().map_or(0, Block::depth)),
            Self::Assign { place, value, .. } => place.depth.max(value.depth),
            Self::For { list, body, .. } => list.depth.max(body.depth()),
            Self::Return(_) => 0,
            Self::Expr(e) => e.depth,
        };
        inner.saturating_add(1)
    }
}

impl Expr {
    /// The name, if it is nothing but a name.
    pub(crate) fn as_name(&self) -> Option<&str> {
        match &*self.kind {
            ExprKind::Name(n) => Some(n),
            _ => None,
        }
    }
}
