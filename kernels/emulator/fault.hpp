// Failures of the driver's calls that a test asks for.
#pragma once

namespace emu {

// Counts a call, and returns the error that it is to fail with, or 0.
int fault();

}  // namespace emu
