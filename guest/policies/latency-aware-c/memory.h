// Memory for one call at a time.
#pragma once

// Takes back all that was handed out, in no time.
void memory_reset(void);
