# The pages for Julia users, from README.md and the docstrings: a page for each room of src/MLPGF.jl, public names
# first.
#
#     julia --project=julia/docs -e 'using Pkg; Pkg.develop(path="julia"); Pkg.instantiate()'
#     julia --project=julia/docs julia/docs/make.jl [FOLDER]              # default: julia/docs/build
#
# Documenter refuses links that lead nowhere and exported names without a docstring.

using Documenter, MLPGF

const PACKAGE = dirname(@__DIR__)

"The rooms, in the order of their first file in src/MLPGF.jl, and their files."
function rooms()
    found = Pair{String,Vector{String}}[]
    for line in eachline(joinpath(PACKAGE, "src", "MLPGF.jl"))
        file = match(r"^include\(\"((\w+)/.+\.jl)\"\)", line)
        file === nothing && continue
        k = findfirst(room -> room.first == file[2], found)
        k === nothing ? push!(found, file[2] => [file[1]]) : push!(found[k].second, file[1])
    end
    return found
end

listing(files, which) =
    "```@autodocs\nModules = [MLPGF, MLPGF.Stop, MLPGF.Expressions]\nPages = $(repr(files))\n$which = false\n```\n"

page(room, files) = """
# $(titlecase(replace(room, "_" => " ")))

$(listing(files, "Private"))
## Inside

$(listing(files, "Public"))
"""

function write_pages(folder)
    index = replace(read(joinpath(PACKAGE, "README.md"), String), r"^# MLPGF$"m => "# MLPGF\n\n```@docs\nMLPGF\n```\n")
    write(joinpath(folder, "index.md"), index)
    return map(rooms()) do (room, files)
        write(joinpath(folder, "$room.md"), page(room, ["src/$file" for file in files]))
        "$room.md"
    end
end

mktempdir() do source
    pages = write_pages(source)
    makedocs(sitename="MLPGF", modules=[MLPGF, MLPGF.Stop, MLPGF.Expressions], source=source,
             build=abspath(get(ARGS, 1, joinpath(@__DIR__, "build"))),
             pages=["index.md"; pages], checkdocs=:exports, remotes=nothing,
             format=Documenter.HTML(prettyurls=false, edit_link=nothing, repolink=nothing, size_threshold=nothing))
end
