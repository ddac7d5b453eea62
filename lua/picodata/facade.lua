-- The facade: what `require('picodata')` answers.
--
-- It holds no logic. Each function packs its arguments as MessagePack, calls the core (the Rust module, `core.so`) by
-- name, and unpacks the answer; errors are raised by the core as box errors with the codes of docs/errors.md. The same
-- functions answer over IPROTO under the same names, without this file.

local core = require('picodata.core')
local msgpack = require('msgpack')

-- Every function: its name below `picodata`, its arguments, and what it does. `help` prints this table and the
-- functions are made from it, so what is not documented here does not exist.
local FUNCTIONS = {
    {'start', '{name=, ...}', 'starts this process as an instance: restarts its data, joins the cluster of its peers,'
        .. ' or bootstraps one with them'},
    {'sql', 'text[, params[, opts]]', 'runs one SQL statement, or BEGIN; ...; COMMIT; parameters stand as ? or $1.'
        .. ' Answers {metadata, rows} or {row_count}'},
    {'queries', '', 'the statements that run in the cluster, with their ids, and what each instance has open'},
    {'cancel', 'id', 'ends a statement that picodata.queries() lists; false if it is over already'},
    {'status', '', 'the cluster as this instance sees it: leader, catalog version, instances, replicasets,'
        .. ' moves'},
    {'create_table', '{name=, columns=, primary_key=, ...}', 'creates a table without SQL'},
    {'drop_table', 'name', 'drops a table'},
    {'create_index', 'table, {name=, columns=, unique=}', 'creates a secondary index'},
    {'crud.insert', 'table, row[, opts]', 'inserts a row; an error if its key is there'},
    {'crud.insert_object', 'table, object[, opts]', 'the same for a map of column names to values'},
    {'crud.insert_many', 'table, rows[, opts]', 'inserts many rows, one transaction a replicaset'},
    {'crud.insert_object_many', 'table, objects[, opts]', 'the same for objects'},
    {'crud.replace', 'table, row[, opts]', 'inserts a row or overwrites the one with its key'},
    {'crud.replace_object', 'table, object[, opts]', 'the same for an object'},
    {'crud.replace_many', 'table, rows[, opts]', 'replaces many rows, one transaction a replicaset'},
    {'crud.replace_object_many', 'table, objects[, opts]', 'the same for objects'},
    {'crud.upsert', 'table, row, operations[, opts]', 'inserts a row, or applies the operations to the one there'},
    {'crud.upsert_object', 'table, object, operations[, opts]', 'the same for an object'},
    {'crud.upsert_many', 'table, {{row, operations}, ...}[, opts]', 'upserts many rows'},
    {'crud.upsert_object_many', 'table, {{object, operations}, ...}[, opts]', 'the same for objects'},
    {'crud.get', 'table, key[, opts]', 'the row with this primary key'},
    {'crud.update', 'table, key, operations[, opts]', 'changes fields of a row: {{"+", "stock", -1}, ...}'},
    {'crud.delete', 'table, key[, opts]', 'deletes a row and answers it'},
    {'crud.select', 'table, conditions[, opts]', 'rows by conditions: {{">=", "price", 10}, ...}'},
    {'crud.count', 'table, conditions[, opts]', 'how many rows meet the conditions'},
    {'crud.min', 'table[, index[, opts]]', 'the first row of an index'},
    {'crud.max', 'table[, index[, opts]]', 'the last row of an index'},
    {'crud.len', 'table[, opts]', 'how many rows there are'},
    {'crud.truncate', 'table[, opts]', 'deletes all rows'},
    {'call', "table, key, 'read'|'write', fn, args[, opts]", 'runs a stored function where the key lives'},
    {'bucket_id', 'table, key', 'the bucket of a primary key'},
    {'expel', 'name', 'removes an instance from the cluster for good'},
    {'switchover', 'replicaset[, instance]', 'the master hands over to another member in sync; answers who is master'},
    {'recover', '{lost = {...}[, confirm = ...]}', 'goes on without a majority, or rows, lost for good'},
    {'set_weight', 'replicaset, weight', 'sets how large a share of the buckets a replicaset takes'},
    {'set_setting', 'name, value', 'changes a setting of the cluster; nil resets it'},
    {'settings', '', 'every setting with its value, its default and what it means'},
    {'options', '', 'every option of picodata.start with its default and what it takes'},
}

-- Packs the arguments with the missing ones kept as nulls: a Lua table alone would lose them.
local function pack(...)
    local args = {...}
    for i = 1, select('#', ...) do
        if args[i] == nil then args[i] = msgpack.NULL end
    end
    return msgpack.encode(setmetatable(args, {__serialize = 'seq'}))
end

local function make(name)
    return function(...)
        return (msgpack.decode(core.call('picodata.' .. name, pack(...))))
    end
end

local picodata = {crud = {}}
for _, entry in ipairs(FUNCTIONS) do
    local name = entry[1]
    local member = name:match('^crud%.(.*)$')
    if member then picodata.crud[member] = make(name) else picodata[name] = make(name) end
end

--- Opens an SQL prompt on this instance.
function picodata.console()
    local eval = function(code) return loadstring(code)() end
    require('picodata.console').run({execute = picodata.sql, status = picodata.status, eval = eval, blocking = false})
end

--- Text about all functions, or about those whose names contain `name`.
function picodata.help(name)
    local lines = {}
    for _, entry in ipairs(FUNCTIONS) do
        if name == nil or entry[1]:find(name, 1, true) then
            table.insert(lines, ('picodata.%s(%s)\n    %s'):format(entry[1], entry[2], entry[3]))
        end
    end
    if name == nil then
        table.insert(lines, 'picodata.console()\n    opens an SQL prompt')
        table.insert(lines, "picodata.help('crud')\n    this text, in part")
    elseif name == 'start' then
        for _, option in ipairs(picodata.options()) do
            table.insert(lines, ('    %s (%s)\n        %s'):format(option.name, option.default, option.takes))
        end
    elseif #lines == 0 then
        table.insert(lines, ('there is no picodata.%s; picodata.help() lists what there is'):format(name))
    end
    return table.concat(lines, '\n')
end

return picodata
