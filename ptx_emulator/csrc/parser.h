#pragma once

#include <memory>
#include <string>

#include "ast.h"

namespace ptx {

// Throws Error, with the line, on text that is no PTX.
std::unique_ptr<Module> parse(std::string text);

}  // namespace ptx
