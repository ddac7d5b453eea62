-- For Debian's luarocks: `luarocks make --local` in the checkout builds the module with cargo and installs it, the Lua
-- files and the command `picodata`.
rockspec_format = '3.0'
package = 'picodata'
version = 'scm-1'
source = {url = 'file://.'}
description = {
    summary = 'One distributed SQL database out of stock Tarantool instances',
    license = 'BSD-2-Clause',
}
dependencies = {'lua == 5.1'}
-- The command runs in Tarantool, not in the Lua that luarocks would wrap it in.
deploy = {wrap_bin_scripts = false}
build = {
    type = 'make',
    build_target = 'build',
    install_target = 'install',
    build_variables = {},
    install_variables = {BINDIR = '$(BINDIR)', LUADIR = '$(LUADIR)', LIBDIR = '$(LIBDIR)'},
    copy_directories = {'docs'},
}
