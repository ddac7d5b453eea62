-- The SQL console: reads statements that may span lines, runs them, prints tables and times.
--
-- In comes a session: how to execute a statement, how to ask for the status. It knows nothing of where the statements
-- run: `picodata.console()` gives it the functions of the own process, the command line those of a connection.

local clock = require('clock')
local ffi = require('ffi')
local fio = require('fio')
local socket = require('socket')

ffi.cdef [[
    char *readline(const char *prompt);
    void add_history(const char *line);
    int read_history(const char *file);
    int write_history(const char *file);
    void free(void *pointer);
    int isatty(int fd);
]]

local console = {}

local CELL_CHARS_MAX = 60
local ROWS_SHOWN_MAX = 1000

local HELP = [[
End a statement with a semicolon; it may span lines.
  \d          tables            \d NAME     columns of a table
  \s          status            \timing     switch times on and off
  \i FILE     run a file        \q          leave (or Ctrl-D)]]

--- Lua code that lists the tables of an instance. A sharded table's tuples begin with the bucket id.
console.TABLES = [[
    local rows = {}
    for _, definition in box.space._space:pairs() do
        local space = box.space[definition.name]
        if definition.id >= 512 and not definition.name:find('^_pico_') and space then
            local format = space:format()
            local sharded = format[1] ~= nil and format[1].name == '_pico_bucket_id'
            local columns = sharded and #format - 1 or #format
            table.insert(rows, {definition.name, sharded and 'sharded' or 'global', space.engine, columns})
        end
    end
    table.sort(rows, function(a, b) return a[1] < b[1] end)
    return rows
]]

--- Whether a file descriptor is a terminal.
function console.is_terminal(fd)
    return ffi.C.isatty(fd) == 1
end

-- Tables --------------------------------------------------------------------------------------------------------------

local function utf8_length(text)
    local _, continuation = text:gsub('[\128-\191]', '')
    return #text - continuation
end

local function utf8_cut(text, chars_max)
    if utf8_length(text) <= chars_max then return text end
    local cut, chars = 1, 0
    while chars < chars_max - 1 do
        cut = cut + #text:sub(cut):match('^[%z\1-\127\194-\244]?[\128-\191]*')
        chars = chars + 1
    end
    return text:sub(1, cut - 1) .. '…'
end

local function show(value)
    if value == nil then return 'NULL' end
    if type(value) == 'table' then return require('json').encode(value) end
    if type(value) == 'number' and value % 1 ~= 0 then return ('%.10g'):format(value) end
    return (tostring(value):gsub('[UL]?LL$', ''):gsub('%c', ' '))
end

local function is_number(value)
    return type(value) == 'number' or type(value) == 'cdata' and value ~= nil and tonumber(tostring(value)) ~= nil
end

--- The answer of a statement as text: a table, or a line.
function console.format(answer)
    if answer.row_count then return ('%d %s'):format(answer.row_count, answer.row_count == 1 and 'row' or 'rows') end
    local metadata, rows = answer.metadata or {}, answer.rows or {}
    local widths, right, cells = {}, {}, {}
    for i, column in ipairs(metadata) do
        widths[i], right[i] = utf8_length(column.name), true
    end
    for r = 1, math.min(#rows, ROWS_SHOWN_MAX) do
        cells[r] = {}
        for i in ipairs(metadata) do
            local value = rows[r][i]
            local text = #metadata > 1 and utf8_cut(show(value), CELL_CHARS_MAX) or show(value)
            cells[r][i] = text
            widths[i] = math.max(widths[i], utf8_length(text))
            if value ~= nil and not is_number(value) then right[i] = false end
        end
    end
    local function line(texts)
        local padded = {}
        for i, text in ipairs(texts) do
            local space = (' '):rep(widths[i] - utf8_length(text))
            padded[i] = right[i] and space .. text or text .. space
        end
        return (' ' .. table.concat(padded, ' | ')):gsub('%s+$', '')
    end
    local names, rules = {}, {}
    for i, column in ipairs(metadata) do
        names[i], rules[i] = column.name, ('-'):rep(widths[i] + 2)
    end
    local out = {(line(names)), table.concat(rules, '+')}
    for _, row in ipairs(cells) do table.insert(out, (line(row))) end
    local hidden = #rows > #cells and (', the first %d shown'):format(#cells) or ''
    table.insert(out, ('(%d %s%s)'):format(#rows, #rows == 1 and 'row' or 'rows', hidden))
    return table.concat(out, '\n')
end

-- Statements ----------------------------------------------------------------------------------------------------------

-- Where a comment ends that begins at a place; comments of this kind nest.
local function comment_end(text, at)
    local depth = 0
    repeat
        local mark = text:match('^()/%*', at) and 1 or text:match('^()%*/', at) and -1
        depth = depth + (mark or 0)
        at = at + (mark and 2 or 1)
    until depth == 0 or at > #text
    return depth == 0 and at - 1 or nil
end

-- Where a string ends in which a backslash takes the next character along.
local function escaped_end(text, at)
    repeat
        at = text:find("['\\]", at + 1)
        local is_backslash = at and text:sub(at, at) == '\\'
        if is_backslash then at = at + 1 end
    until not is_backslash
    return at
end

-- Where the first complete statement ends: the position of a semicolon outside quotes and comments, or nil.
local function statement_end(text, at)
    while at <= #text do
        local c, two = text:sub(at, at), text:sub(at, at + 1)
        local tag = c == '$' and not text:sub(at - 1, at - 1):find('[%w_$]') and text:match('^%$[%a_]?[%w_]*%$', at)
        if c == ';' then
            return at
        elseif c == "'" and text:sub(1, at - 1):find('%f[%w_][eE]$') then
            at = escaped_end(text, at)
        elseif c == "'" or c == '"' then
            at = text:find(c, at + 1, true)
        elseif two == '--' then
            at = text:find('\n', at, true)
        elseif two == '/*' then
            at = comment_end(text, at)
        elseif tag then
            at = text:find(tag, at + #tag, true)
            at = at and at + #tag - 1
        end
        if at == nil then return nil end
        at = at + 1
    end
end

-- The first two words of a statement in capitals, comments left out.
local function first_words(statement)
    local rest = statement
    repeat
        local before = rest
        rest = rest:gsub('^%s+', ''):gsub('^%-%-[^\n]*', '')
        if rest:sub(1, 2) == '/*' then rest = rest:sub((comment_end(rest, 1) or #rest) + 1) end
    until rest == before
    local first, second = rest:match('^(%a*)%s*(%a*)')
    return first:upper(), second:upper()
end

local ENDS_TRANSACTION = {COMMIT = true, END = true, ROLLBACK = true}

--- Splits text into its complete statements and what is left over. A transaction, from BEGIN to COMMIT, is one.
function console.split(text)
    local statements, begins, from, in_transaction = {}, 1, 1, false
    local at = statement_end(text, 1)
    while at do
        local first, second = first_words(text:sub(from, at - 1))
        if first == 'BEGIN' or first == 'START' and second == 'TRANSACTION' then
            in_transaction = true
        elseif ENDS_TRANSACTION[first] then
            in_transaction = false
        end
        from = at + 1
        if not in_transaction then
            local statement = text:sub(begins, at - 1):match('^%s*(.-)%s*$')
            if statement ~= '' then table.insert(statements, statement) end
            begins = from
        end
        at = statement_end(text, from)
    end
    return statements, text:sub(begins)
end

-- Input ---------------------------------------------------------------------------------------------------------------

-- Lines from a terminal with editing and history. Waits inside readline, so nothing else in the process runs: for a
-- process that is only a client.
local function terminal_lines(history)
    ffi.C.read_history(history)
    return function(prompt)
        local line = ffi.C.readline(prompt)
        if line == nil then return nil end
        local text = ffi.string(line)
        ffi.C.free(line)
        if text:match('%S') then
            ffi.C.add_history(text)
            ffi.C.write_history(history)
        end
        return text
    end
end

-- Lines without editing; other fibers run while it waits.
local function plain_lines(show_prompt)
    return function(prompt)
        if show_prompt then io.write(prompt) io.flush() end
        if show_prompt then socket.iowait(0, 'R') end
        return io.read('*l')
    end
end

-- The session ---------------------------------------------------------------------------------------------------------

local function print_error(err)
    local text = type(err) == 'cdata' and err.message or tostring(err)
    local code = type(err) == 'cdata' and err.code and (' %d'):format(err.code) or ''
    io.stderr:write(('ERROR%s: %s\n'):format(code, text))
end

local function print_names(rows, columns)
    local metadata = {}
    for i, name in ipairs(columns) do metadata[i] = {name = name} end
    print(console.format({metadata = metadata, rows = rows}))
end

local function print_status(status)
    print(('cluster %s, leader %s, catalog version %s'):format(status.cluster,
        status.leader ~= nil and status.leader or '-',
        status.catalog_version))
    local rows = {}
    for _, i in ipairs(status.instances) do
        local state = i.state .. (i.leaving and ', leaving' or '')
        table.insert(rows, {i.name, state, i.master and 'master' or 'replica', i.replicaset, i.tier, i.address})
    end
    print_names(rows, {'instance', 'state', 'role', 'replicaset', 'tier', 'address'})
    rows = {}
    for _, r in ipairs(status.replicasets) do
        table.insert(rows, {r.name, r.master, r.buckets, table.concat(r.in_sync or {}, ' ')})
    end
    print_names(rows, {'replicaset', 'master', 'buckets', 'in_sync'})
    rows = {}
    for _, m in ipairs(status.moves or {}) do
        table.insert(rows, {m.id, m.from, m.to, ('%d-%d'):format(m.first_bucket, m.last_bucket), m.phase})
    end
    if #rows > 0 then print_names(rows, {'move', 'from', 'to', 'buckets', 'phase'}) end
end
console.print_status = print_status

local Session = {}
Session.__index = Session

function Session:execute(statement)
    local started = clock.monotonic()
    local ok, answer = pcall(self.options.execute, statement)
    local took_ms = (clock.monotonic() - started) * 1000
    if not ok then
        self.failed = true
        return print_error(answer)
    end
    print(console.format(answer))
    if self.timing then print(('%.1f ms'):format(took_ms)) end
end

function Session:feed(text)
    local statements, rest = console.split(text)
    for _, statement in ipairs(statements) do self:execute(statement) end
    return rest
end

--- The same for text that nothing comes behind: what is left over is run too, and says itself what it lacks.
function Session:feed_all(text)
    local rest = self:feed(text .. '\n;')
    if rest:match('[^%s;]') then self:execute(rest) end
end

local COMMANDS = {
    ['\\q'] = function(session) session.finished = true end,
    ['\\?'] = function() print(HELP) end,
    ['\\s'] = function(session) print_status(session.options.status()) end,
    ['\\timing'] = function(session)
        session.timing = not session.timing
        print('timing is ' .. (session.timing and 'on' or 'off'))
    end,
    ['\\d'] = function(session, name)
        if name == '' then
            return print_names(session.options.eval(console.TABLES), {'table', 'distribution', 'engine', 'columns'})
        end
        local rows = {}
        for _, column in ipairs(session.options.execute(('SELECT * FROM %s LIMIT 0'):format(name)).metadata) do
            table.insert(rows, {column.name, column.type})
        end
        print_names(rows, {'column', 'type'})
    end,
    ['\\i'] = function(session, name)
        local file, reason = io.open(name)
        if not file then error(reason, 0) end
        session:feed_all(file:read('*a'))
        file:close()
    end,
}

function Session:command(line)
    local name, argument = line:match('^%s*(\\%S*)%s*(.-)%s*;?%s*$')
    local command = COMMANDS[name]
    local ok, err = false, name .. ' is not a command; \\? lists them'
    if command then ok, err = pcall(command, self, argument) end
    if not ok then
        self.failed = true
        print_error(err)
    end
end

--- Runs text that holds whole statements. Answers whether all of them succeeded.
function console.run_text(text, options)
    local session = setmetatable({options = options, timing = options.timing}, Session)
    session:feed_all(text)
    return not session.failed
end

--- Reads and runs statements until the input ends.
--
-- options.execute  function(text) -> the answer of picodata.sql, or raises
-- options.status   function() -> the answer of picodata.status
-- options.eval     function(code) -> what the Lua code answers on the instance
-- options.blocking true when nothing else runs in the process: lines can then be edited
function console.run(options)
    local terminal = console.is_terminal(0)
    local session = setmetatable({options = options, timing = terminal}, Session)
    local history = fio.pathjoin(os.getenv('HOME') or '.', '.picodata_history')
    local lines = terminal and options.blocking and terminal_lines(history) or plain_lines(terminal)
    if terminal then print('SQL ends with ;  commands: \\?  leave: \\q') end
    local pending = ''
    while not session.finished do
        local line = lines(pending:match('%S') and '      -> ' or 'picodata> ')
        if line == nil then break end
        if line:match('^%s*\\') and not pending:match('%S') then
            session:command(line)
        else
            pending = session:feed(pending .. line .. '\n')
        end
    end
    if pending:match('%S') and not session.finished then session:feed_all(pending) end
    return not session.failed
end

return console
