"""Here programs are compiled as users compile them."""

import compilation

compilation.compile_as_users_do()
