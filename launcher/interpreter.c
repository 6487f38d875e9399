/*
 * The recipe of Programs/python.c through the PyConfig interface, with what a python at another
 * place and under another name would get wrong:
 *
 *  - prefix: getpath looks for lib/python3.x beside the executable and would take whichever it
 * finds there, so the prefix of the Python that was linked in is given; PYTHONHOME still wins;
 *  - executable: dragon itself, so that whoever runs sys.executable gets dragon again. In an active
 *    virtual environment that dragon is not a part of, site must see the environment's own python
 *    while it sets up sys.path, and sys.executable is put right afterwards;
 *  - base_executable: what a new virtual environment links to. From inside an environment, that is
 *    the file behind the link.
 *
 * Py_RunMain does the rest: it is python3.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "interpreter.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "options.h"
#include "overlay.h"
#include "self.h"

#define BOOT_MODULE "_dragon_boot"
#define MAX_FROZEN 8

/* Python keeps the pointer. The last entry stays empty: it ends the table. */
static struct _frozen frozen_modules[MAX_FROZEN + 1];

/* with_stdlib: false where the standard library must come from its files: -X frozen_modules=off and
 * PYTHONHOME. */
static void set_frozen_modules(bool with_stdlib)
{
    size_t n = 0;
    for (size_t i = 0; i < dragon_overlay_n_frozen && n < MAX_FROZEN; i++) {
        const struct dragon_overlay_module *module = &dragon_overlay_frozen[i];
        if (with_stdlib || !strcmp(module->name, BOOT_MODULE)) {
            frozen_modules[n++] = (struct _frozen){
                .name = module->name,
                .code = module->code,
                .size = (int)module->code_size_bytes,
                .is_package = module->is_package,
            };
        }
    }
    PyImport_FrozenModules = frozen_modules;
}

/*
 * Python writes to nearly every page of the executable's data while it starts. Taking them in one
 * call instead of by 300 page faults is worth 2 to 3 % of `dragon -c pass`. Before Linux 5.14 the
 * kernel refuses, which does no harm.
 */
static void prefault_data(void)
{
    extern char __data_start[]; /* these two come from the linker */
    extern char _edata[];
    uintptr_t page_size_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)__data_start & ~(page_size_bytes - 1);
#ifdef MADV_POPULATE_WRITE
    madvise((void *)start, (uintptr_t)_edata - start, MADV_POPULATE_WRITE);
#else
    (void)start;
#endif
}

static PyStatus preinitialize(const struct dragon_options *options)
{
    PyPreConfig preconfig;
    PyPreConfig_InitPythonConfig(&preconfig);
    return Py_PreInitializeFromBytesArgs(&preconfig, options->argc, options->argv);
}

static PyStatus set_orig_argv(PyConfig *config, const struct dragon_options *options)
{
    for (int i = 0; i < options->orig_argc; i++) {
        wchar_t *word = Py_DecodeLocale(options->orig_argv[i], NULL);
        if (!word) {
            return PyStatus_NoMemory();
        }
        PyStatus status = PyWideStringList_Append(&config->orig_argv, word);
        PyMem_RawFree(word);
        if (PyStatus_Exception(status)) {
            return status;
        }
    }
    return PyStatus_Ok();
}

/* PYTHONHOME names the standard library: then nothing of ours may stand in for it. */
static bool has_home(const struct dragon_options *options)
{
    const char *home = options->reads_environment ? getenv("PYTHONHOME") : NULL;
    return home && *home;
}

static PyStatus set_prefix(PyConfig *config)
{
    PyStatus status = PyConfig_SetBytesString(config, &config->prefix, DRAGON_PYTHON_PREFIX);
    if (PyStatus_Exception(status)) {
        return status;
    }
    return PyConfig_SetBytesString(config, &config->exec_prefix, DRAGON_PYTHON_PREFIX);
}

/* venv_python: the python that site must believe to be, or NULL. */
static PyStatus set_executable(PyConfig *config, const struct dragon_self *self,
                               const char *venv_python)
{
    const char *executable = venv_python ? venv_python : self->path;
    PyStatus status = PyConfig_SetBytesString(config, &config->executable, executable);
    if (PyStatus_Exception(status)) {
        return status;
    }
    const char *base = self->is_in_venv ? self->real : self->path;
    return PyConfig_SetBytesString(config, &config->base_executable, base);
}

/* No PyConfig_Read here to look at the result: Python 3.11 copies the configuration once more and
 * forgets warn_default_encoding then. */
static PyStatus configure(PyConfig *config, const struct dragon_options *options,
                          const struct dragon_self *self, const char *venv_python)
{
    PyStatus status = PyConfig_SetBytesArgv(config, options->argc, options->argv);
    if (PyStatus_Exception(status)) {
        return status;
    }
    status = set_orig_argv(config, options);
    if (PyStatus_Exception(status)) {
        return status;
    }
    if (!has_home(options)) {
        status = set_prefix(config);
        if (PyStatus_Exception(status)) {
            return status;
        }
    }
    return set_executable(config, self, venv_python);
}

static PyStatus initialize(const struct dragon_options *options, const struct dragon_self *self,
                           const char *venv_python)
{
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = configure(&config, options, self, venv_python);
    if (!PyStatus_Exception(status)) {
        set_frozen_modules(options->has_frozen_stdlib && !has_home(options));
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

static int set_sys_executable(const char *path)
{
    PyObject *executable = PyUnicode_DecodeFSDefault(path);
    int r = executable ? PySys_SetObject("executable", executable) : -1;
    Py_XDECREF(executable);
    return r;
}

static int start_overlay(void)
{
    PyObject *boot = PyImport_ImportModule(BOOT_MODULE);
    Py_XDECREF(boot);
    return boot ? 0 : -1;
}

int dragon_interpreter_run(const struct dragon_options *options)
{
    struct dragon_self self;
    prefault_data();
    dragon_self_locate(&self, options->argv[0]);
    const char *venv_python = self.venv_python[0] && !has_home(options) ? self.venv_python : NULL;
    if (dragon_overlay_register(options) < 0) {
        fputs("dragon: out of memory\n", stderr);
        return 1;
    }
    PyStatus status = preinitialize(options);
    if (!PyStatus_Exception(status)) {
        status = initialize(options, &self, venv_python);
    }
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
    if ((venv_python && set_sys_executable(self.path) < 0) || start_overlay() < 0) {
        PyErr_Print();
        Py_FinalizeEx();
        return 1;
    }
    return Py_RunMain();
}

const char *dragon_interpreter_version(void)
{
    return PY_VERSION;
}

const char *dragon_interpreter_long_version(void)
{
    return Py_GetVersion();
}

const char *dragon_interpreter_stdlib(void)
{
    return DRAGON_PYTHON_STDLIB;
}
