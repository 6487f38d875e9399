#include "inspect/commands.h"

#include <stddef.h>
#include <string.h>

#include "inspect/doctor.h"

const struct dragon_command dragon_commands[] = {
    {"doctor", "say how this dragon is built and what works on this machine", dragon_doctor_run},
    {NULL, NULL, NULL},
};

const struct dragon_command *dragon_command_find(const char *name)
{
    for (const struct dragon_command *command = dragon_commands; command->name; command++) {
        if (!strcmp(command->name, name)) {
            return command;
        }
    }
    return NULL;
}
