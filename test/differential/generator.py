"""Random schemas, data and queries whose answers the standard fixes: nothing here depends on an order that is not asked for,
overflows, or divides by zero. The same seed gives the same statements."""

import random

TYPES = {
    "INT": "number",
    "BIGINT": "number",
    "SMALLINT": "number",
    "DECIMAL(8, 2)": "number",
    "DOUBLE PRECISION": "number",
    "TEXT": "text",
    "VARCHAR(8)": "text",
    "CHAR(3)": "padded",
    "BOOLEAN": "boolean",
    "DATE": "date",
}
WORDS = ["a", "b", "ab", "abc", "B", "", "x y", "a_c", "50%", "zz"]
PADDED = ["a", "ab", "abc", "b"]
DAYS = ["2023-12-31", "2024-01-01", "2024-01-31", "2024-02-29", "2024-03-01"]
COMPARISONS = ["=", "<>", "<", "<=", ">", ">="]
DEPTH_MAX = 3


class Column:
    def __init__(self, name, kind, ty=None):
        self.name, self.kind, self.ty = name, kind, ty


class Table:
    def __init__(self, name, columns, rows, clause):
        self.name, self.columns, self.rows, self.clause = name, columns, rows, clause


class Generator:
    """Statements of one schema."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = 0
        self.tables = [self._table(f"t{n}") for n in range(1, self.random.randint(2, 4) + 1)]

    # Schema and data

    def _table(self, name):
        columns = [Column("id", "number", "INT")]
        for at in range(self.random.randint(2, 5)):
            ty = self.random.choice(list(TYPES))
            columns.append(Column(f"c{at}", TYPES[ty], ty))
        clause = self.random.choice(["", "", " DISTRIBUTED BY (id)", " DISTRIBUTED GLOBALLY"])
        count = self.random.choice([0, 1, 5, 12, 25])
        rows = [[str(n + 1)] + [self._value(c) for c in columns[1:]] for n in range(count)]
        return Table(name, columns, rows, clause)

    def _value(self, column):
        if self.random.random() < 0.2:
            return "NULL"
        return self.literal(column.kind, column.ty)

    def setup(self):
        """Statements that make the schema and fill it."""
        for table in self.tables:
            columns = ", ".join(f"{c.name} {c.ty}{' PRIMARY KEY' if c.name == 'id' else ''}" for c in table.columns)
            yield f"CREATE TABLE {table.name} ({columns}){table.clause}"
            if table.rows:
                values = ", ".join(f"({', '.join(row)})" for row in table.rows)
                yield f"INSERT INTO {table.name} VALUES {values}"

    def teardown(self):
        return [f"DROP TABLE {table.name}" for table in self.tables]

    # Expressions. A scope is a list of (qualifier, columns); `outer` holds the scopes around it.

    def literal(self, kind, ty=None):
        pick = self.random
        if kind == "number":
            if ty == "DECIMAL(8, 2)":
                return f"{pick.randint(-500, 500) / 100:.2f}"
            if ty == "DOUBLE PRECISION":
                return f"{pick.randint(-20, 20) / 4}"
            return str(pick.randint(-3, 12))
        if kind == "text":
            return f"'{pick.choice(WORDS)}'"
        if kind == "padded":
            return f"'{pick.choice(PADDED)}'"
        if kind == "boolean":
            return pick.choice(["TRUE", "FALSE"])
        return f"DATE '{pick.choice(DAYS)}'"

    def column(self, kind, scope):
        found = [f"{q}.{c.name}" for q, columns in scope for c in columns if c.kind == kind]
        return self.random.choice(found) if found else None

    def value(self, kind, scope, depth=0):
        """An expression of a kind over a scope."""
        column = self.column(kind, scope)
        if column and (depth >= DEPTH_MAX or self.random.random() < 0.5):
            return column
        if depth >= DEPTH_MAX or self.random.random() < 0.25:
            return self.literal(kind)
        make = {"number": self._number, "text": self._text, "boolean": self.predicate, "date": self._date}
        return make.get(kind, lambda *_: column or self.literal(kind))(scope, depth + 1)

    def _number(self, scope, depth):
        pick = self.random.random()
        one = lambda: self.value("number", scope, depth)  # noqa: E731
        if pick < 0.35:
            return f"({one()} {self.random.choice('+-')} {one()})"
        if pick < 0.42:
            return f"({one()} * {self.random.randint(-2, 3)})"
        if pick < 0.5:
            return f"CAST({self.column('number', scope) or one()} AS DECIMAL(20, 4))"
        if pick < 0.6:
            return f"COALESCE({one()}, {one()})"
        if pick < 0.7:
            return f"CASE WHEN {self.predicate(scope, depth)} THEN {one()} ELSE {one()} END"
        if pick < 0.78:
            return f"char_length({self.value('text', scope, depth)})"
        if pick < 0.84:
            return f"abs({one()})"
        if pick < 0.88:
            return f"NULLIF({one()}, {one()})"
        return f"({self.scalar_subquery('number', scope, depth)})"

    def _text(self, scope, depth):
        pick = self.random.random()
        one = lambda: self.value("text", scope, depth)  # noqa: E731
        if pick < 0.3:
            return f"({one()} || {one()})"
        if pick < 0.45:
            return f"{self.random.choice(['upper', 'lower', 'trim'])}({one()})"
        if pick < 0.6:
            return f"substring({one()} FROM {self.random.randint(1, 3)} FOR {self.random.randint(0, 3)})"
        if pick < 0.75:
            return f"COALESCE({one()}, {self.literal('text')})"
        if pick < 0.9:
            return f"CASE WHEN {self.predicate(scope, depth)} THEN {one()} ELSE {one()} END"
        return f"({self.scalar_subquery('text', scope, depth)})"

    def _date(self, scope, depth):
        return f"({self.value('date', scope, depth)} + {self.random.randint(-40, 40)})"

    def predicate(self, scope, depth=0):
        pick = self.random.random()
        kind = self.random.choice(["number", "number", "text", "date", "boolean"])
        one = lambda k=kind: self.value(k, scope, depth + 1)  # noqa: E731
        if depth >= DEPTH_MAX or pick < 0.25:
            return f"({one()} {self.random.choice(COMPARISONS)} {one()})"
        if pick < 0.3 and self.column("padded", scope):
            side = self.random.choice([self.literal("padded"), self.column("padded", scope)])
            return f"({self.column('padded', scope)} {self.random.choice(COMPARISONS)} {side})"
        if pick < 0.38:
            return f"({self.predicate(scope, depth + 1)} {self.random.choice(['AND', 'OR'])} {self.predicate(scope, depth + 1)})"
        if pick < 0.44:
            return f"(NOT {self.predicate(scope, depth + 1)})"
        if pick < 0.52:
            return f"({one()} IS {self.random.choice(['', 'NOT '])}NULL)"
        if pick < 0.58:
            return f"({one('number')} {self.random.choice(['', 'NOT '])}BETWEEN {one('number')} AND {one('number')})"
        if pick < 0.65:
            # A subquery can not be the first item: the parser takes what follows for the whole list.
            first = self.literal("number")
            items = ", ".join(
                [first, *(self.random.choice([self.literal("number"), "NULL", one("number")]) for _ in range(2))]
            )
            return f"({one('number')} {self.random.choice(['', 'NOT '])}IN ({items}))"
        if pick < 0.7:
            pattern = self.random.choice(["'a%'", "'%b%'", "'_b%'", "'%'", "'a!_%' ESCAPE '!'", "''"])
            return f"({one('text')} {self.random.choice(['', 'NOT '])}LIKE {pattern})"
        if pick < 0.75:
            return f"({one()} IS {self.random.choice(['', 'NOT '])}DISTINCT FROM {one()})"
        if pick < 0.79:
            return f"({self.predicate(scope, depth + 1)} IS {self.random.choice(['', 'NOT '])}{self.random.choice(['TRUE', 'FALSE', 'UNKNOWN'])})"
        if pick < 0.87:
            negated = self.random.choice(["", "NOT "])
            return f"({negated}EXISTS ({self.subquery(None, scope, depth)}))"
        sub_kind = self.random.choice(["number", "text", "date"])
        if pick < 0.95:
            return f"({one(sub_kind)} {self.random.choice(['', 'NOT '])}IN ({self.subquery(sub_kind, scope, depth)}))"
        word = self.random.choice(["ANY", "ALL", "SOME"])
        return f"({one('number')} {self.random.choice(COMPARISONS)} {word} ({self.subquery('number', scope, depth)}))"

    # Subqueries

    def _alias(self):
        self.names += 1
        return f"a{self.names}"

    def _source(self, outer, depth):
        """FROM of a subquery: its text and its scope."""
        table, alias = self.random.choice(self.tables), self._alias()
        text, scope = f"{table.name} {alias}", [(alias, table.columns)]
        if self.random.random() < 0.2:
            other, second = self.random.choice(self.tables), self._alias()
            both = [*scope, (second, other.columns)]
            word = self.random.choice(["JOIN", "LEFT JOIN"])
            condition = self.simple_condition(both, outer)
            return f"{text} {word} {other.name} {second} ON {condition}", both
        return text, scope

    def simple_condition(self, scope, outer=()):
        """A comparison of columns, of this scope or of one outside."""
        kind = self.random.choice(["number", "number", "number", "text", "date"])
        left = self.column(kind, scope) or self.literal(kind)
        wide = list(outer) if outer and self.random.random() < 0.7 else scope
        right = self.column(kind, wide) or self.literal(kind)
        operator = "=" if self.random.random() < 0.6 else self.random.choice(COMPARISONS)
        return f"({left} {operator} {right})"

    def _where(self, scope, outer, depth):
        pick = self.random.random()
        if pick < 0.15:
            return ""
        conditions = [self.simple_condition(scope, outer)]
        if pick > 0.6:
            conditions.append(self.predicate([*scope, *outer] if pick > 0.8 else scope, depth + 1))
        return " WHERE " + " AND ".join(conditions)

    def subquery(self, kind, outer, depth):
        """A query of one column of a kind, or of any for None; any number of rows."""
        source, scope = self._source(outer, depth)
        item = (
            "1"
            if kind is None
            else self.value(kind, scope if self.random.random() < 0.8 else [*scope, *outer], depth + 1)
        )
        pick = self.random.random()
        where = self._where(scope, outer, depth)
        if pick < 0.1 and kind == "number":
            group = self.column("number", scope)
            having = f" HAVING count(*) > {self.random.randint(0, 2)}" if self.random.random() < 0.5 else ""
            return f"SELECT {self.aggregate(scope)} FROM {source}{where} GROUP BY {group}{having}"
        if pick < 0.16 and kind:
            other, other_scope = self._source(outer, depth)
            word = self.random.choice(["UNION", "UNION ALL", "EXCEPT", "INTERSECT"])
            second = self.value(kind, other_scope, depth + 1)
            return f"SELECT {item} FROM {source}{where} {word} SELECT {second} FROM {other}{self._where(other_scope, outer, depth)}"
        if pick < 0.22:
            return f"SELECT DISTINCT {item} FROM {source}{where}"
        if pick < 0.3:
            key = f"{scope[0][0]}.id" + (f", {scope[1][0]}.id" if len(scope) > 1 else "")
            return f"SELECT {item} FROM {source}{where} ORDER BY {key} LIMIT {self.random.randint(0, 2)} OFFSET {self.random.randint(0, 1)}"
        return f"SELECT {item} FROM {source}{where}"

    def scalar_subquery(self, kind, outer, depth):
        """A query of one column and at most one row."""
        source, scope = self._source(outer, depth)
        where = self._where(scope, outer, depth)
        if self.random.random() < 0.3:
            key = f"{scope[0][0]}.id" + (f", {scope[1][0]}.id" if len(scope) > 1 else "")
            return f"SELECT {self.value(kind, scope, depth + 1)} FROM {source}{where} ORDER BY {key} LIMIT 1"
        if kind == "number":
            return f"SELECT {self.aggregate(scope)} FROM {source}{where}"
        return f"SELECT {self.random.choice(['min', 'max'])}({self.value(kind, scope, DEPTH_MAX)}) FROM {source}{where}"

    def aggregate(self, scope):
        """A number over a group."""
        argument = (
            self.value("number", scope, DEPTH_MAX - 1) if self.random.random() < 0.3 else self.column("number", scope)
        )
        word = self.random.choice(["sum", "min", "max", "count", "avg", "count", "sum"])
        if word == "count" and self.random.random() < 0.5:
            return "count(*)"
        distinct = "DISTINCT " if self.random.random() < 0.2 else ""
        made = f"{word}({distinct}{argument})"
        if self.random.random() < 0.15:
            made += f" FILTER (WHERE {self.simple_condition(scope)})"
        return made

    # Whole queries

    def _from(self):
        if self.random.random() < 0.1:
            alias = self._alias()
            derived, columns = self._derived()
            text, scope = f"({derived}) AS {alias}", [(alias, columns)]
        else:
            table, alias = self.random.choice(self.tables), self._alias()
            text, scope = f"{table.name} {alias}", [(alias, table.columns)]
        for _ in range(self.random.choice([0, 0, 1, 1, 2])):
            relation, second, columns = self._relation(scope)
            lateral = relation.startswith("LATERAL")
            word = self.random.choice(
                ["JOIN", "LEFT JOIN", "CROSS JOIN"]
                if lateral
                else ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "JOIN"]
            )
            both = [*scope, (second, columns)]
            text += f" {word} {relation}"
            if word != "CROSS JOIN":
                text += f" ON {self._on(both, scope, second, columns, word)}"
            scope = both
        return text, scope

    def _on(self, both, left, second, columns, word):
        kind = self.random.choice(["number", "number", "text", "date"])
        a, b = self.column(kind, left), self.column(kind, [(second, columns)])
        if not a or not b:
            a, b = self.column("number", left), self.column("number", [(second, columns)])
        if not a or not b:
            return "(1 = 1)"
        condition = f"({a} = {b})"
        # PostgreSQL joins FULL by equality only.
        if word == "FULL JOIN":
            return condition
        pick = self.random.random()
        if pick < 0.2:
            return f"({a} {self.random.choice(COMPARISONS)} {b})"
        if pick < 0.35:
            return f"{condition} AND {self.simple_condition(both)}"
        if pick < 0.4:
            return f"{self.predicate(both, 2)}"
        return condition

    def _relation(self, scope):
        """What is joined: a table, a derived table, or a lateral one."""
        alias, pick = self._alias(), self.random.random()
        if pick < 0.75:
            table = self.random.choice(self.tables)
            return f"{table.name} {alias}", alias, table.columns
        lateral = pick > 0.93
        text, columns = self._derived(scope if lateral else ())
        return f"{'LATERAL ' if lateral else ''}({text}) AS {alias}", alias, columns

    def _derived(self, outer=()):
        """A derived table: its text and its columns, some of which keep the names that they have in their tables."""
        pick = self.random.random()
        if pick < 0.25:
            source, inner = self._source(outer, 1)
            group = self.column("number", inner)
            text = f"SELECT {group} AS n, CAST(count(*) AS TEXT) AS s FROM {source}{self._where(inner, outer, 2)} GROUP BY {group}"
            return text, [Column("n", "number"), Column("s", "text")]
        kinds = [self.random.choice(["number", "number", "text", "date"]) for _ in range(self.random.randint(1, 3))]
        text, columns = self._arm(kinds, outer)
        if pick < 0.6:
            for _ in range(self.random.choice([1, 1, 2])):
                word = self.random.choice(["UNION ALL", "UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT"])
                text = f"({text}) {word} ({self._arm(kinds, outer)[0]})"
        elif pick < 0.7:
            text = text.replace("SELECT", "SELECT DISTINCT", 1)
        elif pick < 0.75:
            text += f" ORDER BY {', '.join(str(n + 1) for n in range(len(columns)))} LIMIT {self.random.randint(0, 4)}"
        return text, columns

    def _arm(self, kinds, outer):
        """A SELECT of a column of each kind."""
        source, inner = self._source(outer, 1)
        items, columns = [], []
        for n, kind in enumerate(kinds):
            column = self.column(kind, inner) if self.random.random() < 0.6 else None
            name = column.split(".")[1] if column else f"n{n}"
            if any(name == other.name for other in columns):
                column, name = None, f"n{n}"
            items.append(column or f"{self.value(kind, inner, 2)} AS {name}")
            columns.append(Column(name, kind))
        return f"SELECT {', '.join(items)} FROM {source}{self._where(inner, outer, 2)}", columns

    def query(self):
        """A query, and whether its rows come in a fixed order."""
        pick = self.random.random()
        if pick < 0.1:
            return self._set_operation(), False
        if pick < 0.18:
            return self._windowed(), False
        if pick < 0.24:
            return self._with(), False
        if pick < 0.5:
            return self._grouped(), False
        return self._plain()

    def _items(self, scope, count):
        kinds = ["number", "number", "text", "date", "boolean", "padded"]
        made = []
        for _ in range(count):
            kind = self.random.choice(kinds)
            if kind == "padded":
                column = self.column("padded", scope)
                made.append(f"CAST({column} AS TEXT)" if column else "1")
            else:
                made.append(self.value(kind, scope, self.random.randint(0, 2)))
        return made

    def _plain(self):
        source, scope = self._from()
        items = self._items(scope, self.random.randint(1, 4))
        where = f" WHERE {self.predicate(scope)}" if self.random.random() < 0.75 else ""
        distinct = "DISTINCT " if self.random.random() < 0.15 else ""
        named = ", ".join(f"{item} AS r{n}" for n, item in enumerate(items))
        text = f"SELECT {distinct}{named} FROM {source}{where}"
        if self.random.random() < 0.35:
            keys = [
                f"r{n}{self.random.choice(['', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST'])}"
                for n in range(len(items))
            ]
            text += f" ORDER BY {', '.join(keys)}"
            if self.random.random() < 0.5:
                text += f" LIMIT {self.random.randint(0, 6)} OFFSET {self.random.randint(0, 3)}"
            return text, True
        return text, False

    def _grouped(self):
        source, scope = self._from()
        kinds = self.random.sample(["number", "text", "date", "boolean"], self.random.choice([0, 1, 1, 2]))
        groups = [g for g in (self.column(k, scope) for k in kinds) if g]
        if groups and self.random.random() < 0.2:
            groups[0] = f"COALESCE({groups[0]}, {groups[0]})"
        aggregates = [self.aggregate(scope) for _ in range(self.random.randint(1, 3))]
        where = f" WHERE {self.predicate(scope)}" if self.random.random() < 0.5 else ""
        text = f"SELECT {', '.join(groups + aggregates)} FROM {source}{where}"
        if groups:
            word = "ROLLUP" if self.random.random() < 0.08 else "CUBE" if self.random.random() < 0.05 else ""
            text += f" GROUP BY {word}{'(' if word else ''}{', '.join(groups)}{')' if word else ''}"
        if self.random.random() < 0.3:
            text += f" HAVING {self.aggregate(scope)} {self.random.choice(COMPARISONS)} {self.literal('number')}"
        return text

    def _set_operation(self):
        kinds = [self.random.choice(["number", "text", "date"]) for _ in range(self.random.randint(1, 2))]
        parts = []
        for _ in range(self.random.randint(2, 3)):
            source, scope = self._from()
            items = ", ".join(self.value(kind, scope, 2) for kind in kinds)
            where = f" WHERE {self.predicate(scope, 1)}" if self.random.random() < 0.5 else ""
            parts.append(f"SELECT {items} FROM {source}{where}")
        text = parts[0]
        for part in parts[1:]:
            word = self.random.choice(["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"])
            text = f"({text}) {word} ({part})"
        return text

    def _windowed(self):
        table, alias = self.random.choice(self.tables), self._alias()
        scope = [(alias, table.columns)]
        partition = self.column(self.random.choice(["number", "text"]), scope) or f"{alias}.id"
        over = (
            f"OVER (PARTITION BY {partition} ORDER BY {alias}.id)"
            if self.random.random() < 0.7
            else f"OVER (ORDER BY {alias}.id)"
        )
        number = self.column("number", scope)
        function = self.random.choice(
            [
                "row_number()", "rank()", f"sum({number})", "count(*)", f"max({number})", f"lag({number})",
                f"lead({number}, 2)", f"first_value({number})", f"avg({number})",
            ]
        )  # fmt: skip
        where = f" WHERE {self.predicate(scope, 1)}" if self.random.random() < 0.5 else ""
        return f"SELECT {alias}.id, {function} {over} FROM {table.name} {alias}{where}"

    def _with(self):
        source, inner = self._source((), 1)
        body = f"SELECT {self.value('number', inner, 2)} AS n, {self.value('text', inner, 2)} AS s FROM {source}{self._where(inner, (), 2)}"
        columns = [Column("n", "number"), Column("s", "text")]
        first, second = self._alias(), self._alias()
        scope = [(first, columns), (second, columns)]
        where = f" WHERE {self.predicate(scope, 1)}" if self.random.random() < 0.6 else ""
        word = self.random.choice(["JOIN", "LEFT JOIN"])
        return f"WITH w AS ({body}) SELECT {', '.join(self._items(scope, 2))} FROM w {first} {word} w {second} ON {first}.n = {second}.n{where}"

    # Checks that need no other database

    def partitions(self):
        """TLP: a query, and three that together give its rows."""
        source, scope = self._from()
        items = ", ".join(self._items(scope, 2))
        condition = self.predicate(scope)
        base = f"SELECT {items} FROM {source}"
        return base, [f"{base} WHERE {c}" for c in (condition, f"NOT {condition}", f"{condition} IS NULL")]

    def unoptimised(self):
        """NoREC: two counts of the rows that satisfy a condition, of which one is not a filter."""
        source, scope = self._from()
        condition = self.predicate(scope)
        return (
            f"SELECT count(*) FROM {source} WHERE {condition}",
            f"SELECT COALESCE(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) FROM {source}",
        )
