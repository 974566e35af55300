# What can be recorded along a run without leaving Julia: functions of a point that return one number or several.

"""
    Recording

A function of parameters that returns a number or a vector of Float64, made once for a net: an observable of
[`flow`](@ref), evaluated at the points of its trajectory one after the other.
"""
abstract type Recording end

struct RecordedEigenvalues{T} <: Recording
    net::AbstractNet{T}
    extremes::ExtremeEigenvalues{T}
end
"""
    recorded_eigenvalues(net; lowest = 0, highest = 1) -> Recording

Eigenvalues at the ends of the Hessian's spectrum, ascending, from Hessian-vector products: each point begins from the
eigenvectors of the one before (see [`ExtremeEigenvalues`](@ref)), so that a step of a run costs a few of them. Of a
`ConstrainedNet` it is the Hessian in its coordinates, at points θ that obey the constraint.
"""
recorded_eigenvalues(net::AbstractNet{T}; lowest::Int=0, highest::Int=1) where {T} =
    RecordedEigenvalues{T}(net, ExtremeEigenvalues{T}(n_params(net), lowest, highest))
function (r::RecordedEigenvalues)(θ)
    x = parameters_in(r.net, θ)
    return Float64.(extremes!(r.extremes, (y, v) -> hvp!(y, r.net, x, v)))
end
# A run under a constraint shows points that obey it.
parameters_in(::AbstractNet, θ) = θ
parameters_in(r::ConstrainedNet, θ) = coordinates(r.constraint, θ)

"The Euclidean norm of the parameters."
struct RecordedNorm <: Recording end
(::RecordedNorm)(x) = Float64(norm(x))

"Scalar products of x − `origin` with the columns of `vectors`."
struct RecordedProjections <: Recording
    vectors::Matrix{Float64}
    origin::Vector{Float64}
end
(r::RecordedProjections)(x) = r.vectors' * (Float64.(x) - r.origin)

struct RecordedUnitNorms <: Recording
    places::Vector{Vector{Int}}
end
"""
    recorded_unit_norms(layers, layer, out) -> Recording

Norms of the units of a layer: of incoming weights with bias, or, if `out`, of outgoing weights.
"""
function recorded_unit_norms(layers::Vector{Layer}, layer::Int, out::Bool)
    out && check_hidden(layers, layer)
    place(j) = out ? outgoing(layers[layer+1], j) : incoming(layers[layer], j)
    return RecordedUnitNorms([place(j) for j in 1:layers[layer].width])
end
(r::RecordedUnitNorms)(x) = Float64[norm(x[place]) for place in r.places]

"Cosines of incoming weights with bias, of pairs of units of a layer or of units with given vectors."
struct RecordedUnitCosines <: Recording
    first::Vector{Vector{Int}}
    second::Vector{Vector{Int}}         # empty where it is one of
    vectors::Matrix{Float64}            # these, in columns
end
recorded_unit_cosines(layers::Vector{Layer}, layer::Int, pairs) =
    RecordedUnitCosines([incoming(layers[layer], i) for (i, _) in pairs],
                        [incoming(layers[layer], j) for (_, j) in pairs], zeros(0, 0))
recorded_unit_cosines(layers::Vector{Layer}, layer::Int, vectors::Matrix) =
    RecordedUnitCosines([incoming(layers[layer], i) for _ in axes(vectors, 2) for i in 1:layers[layer].width],
                        Vector{Int}[], repeat(vectors; inner=(1, layers[layer].width)))
function (r::RecordedUnitCosines)(x)
    return map(eachindex(r.first)) do k
        a, b = Float64.(x[r.first[k]]), isempty(r.second) ? r.vectors[:, k] : Float64.(x[r.second[k]])
        size = norm(a) * norm(b)
        size > 0 ? clamp(dot(a, b) / size, -1.0, 1.0) : 0.0
    end
end
