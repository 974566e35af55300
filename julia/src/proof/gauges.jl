# Symmetries of the loss move a critical point along a curve or surface of others. Where they are known exactly, as many
# parameters are held where they are as there are such directions: with directions t(x) at x and S the parameters held,
# ∇L·t = 0 everywhere, so that a point where all other derivatives vanish is critical if t(x) restricted to S is
# regular. The Hessian is zero along t at such a point, so that its index is that of the rows and columns of the others.

"Labels of invariances that hold exactly, and not at one point alone."
const GAUGES = ("scale of a unit", "offset of a derivative", "linear units", "softmax shift", "dead unit",
                "place of a step", "step through samples")

"Directions of an invariance at θ, exact for a θ of intervals."
function directions(e::Invariance, net::AbstractNet, θ::Vector{T}) where {T}
    e.label == "step through samples" && return directions_through(net, θ, e.layer, e.units[1])
    layers = layers_in(net)
    e.label in ("softmax shift", "dead unit", "place of a step") && return [T.(d) for d in e.directions]
    l = e.layer
    into, out = [incoming(layers[l], j) for j in e.units], [outgoing(layers[l+1], j) for j in e.units]
    e.label == "scale of a unit" && return [scale_direction(θ, layers[l], layers[l+1], e.units[1])]
    e.label == "offset of a derivative" && return [offset_direction(θ, layers[l], layers[l+1], e.units)]
    length(e.units) == 2 && return [mixing_direction(θ, into[1], into[2], out[1], out[2])]
    return [bias_direction(θ, layers[l], layers[l+1], e.units[1])]
end

"""
Hold parameters where they are, if that accounts for the null directions `N` (of all parameters), beside those that are
held already. With a constraint none are: what it leaves of a symmetry is no coordinate, in general; one parameter each
can be frozen, too.
"""
function fix_gauges!(proof::Proof, N::Matrix{Float64})
    unregularised(proof.coarse) && !(proof.coarse isa ConstrainedNet) || return false
    found, unexplained = explain(proof.coarse, proof.x, N)
    unexplained == 0 && all(e.label in GAUGES for (e, _) in found) || return false
    symmetries = [proof.symmetries; [e for (e, _) in found]]
    T = hcat((d for e in symmetries for d in directions(e, proof.coarse, proof.x))...)
    F = qr(permutedims(T), Val(true))
    rank = count(r -> abs(r) > 1e-8 * abs(F.R[1]), diag(F.R))
    rank == length(fixed(proof)) + size(N, 2) || return false
    proof.free = setdiff(1:length(proof.x), F.p[1:rank])
    proof.symmetries = symmetries
    return true
end

fixed(proof::Proof) = setdiff(1:length(proof.x), proof.free)
gauges(proof::Proof) = Tuple{String,Int,Vector{Int}}[(e.label, e.layer, e.units) for e in proof.symmetries]

"""
    check_gauges(proof, box)

That the directions of the symmetries, restricted to the parameters that are held, are regular all over the box: with B
a left inverse at its middle, ‖I − B t‖_∞ < 1. That units are dead all over the box.
"""
function check_gauges(proof::Proof, box::Vector{Interval{Float64}})
    isempty(proof.symmetries) && return nothing
    net, held = proof.boxed, fixed(proof)
    T = hcat((d[held] for e in proof.symmetries for d in directions(e, net, box))...)
    B = pinv(Float64[midpoint_radius(t)[1] for t in permutedims(T)])
    for i in 1:length(held)
        row = Interval(0.0, 0.0)
        for j in 1:length(held)
            row += abs(sum(Interval{Float64}[B[i, m] * T[j, m] for m in axes(T, 2)]) - (i == j))
        end
        row.hi < 1 || throw(Unproved("the directions of the symmetries are not known well enough"))
    end
    for e in proof.symmetries
        e.label == "dead unit" && !is_dead(net, box, e.layer, e.units[1]) &&
            throw(Unproved("unit $(e.units[1] - 1) of layer $(e.layer - 1) is flat here, but not in the whole box"))
    end
    return nothing
end

"""
What moves the weights (w, b) of a step and leaves the pre-activations of the p samples inside, on which alone it
depends: with the inputs of these as rows of A, p of the weights F and the others S, the vectors e_k − A_F⁻¹ A_S e_k,
k in S. In intervals A_F⁻¹ c lies within ‖Bc‖ z/(1 − z) of Bc for z = ‖I − B A_F‖ < 1, in the largest norm.
"""
function directions_through(net::Net{T}, θ::Vector{T}, l::Int, j::Int) where {T}
    A = inputs_inside(net, θ, l, j)
    p, pivots = size(A, 1), qr(centre.(A), Val(true)).p
    F, S, into = pivots[1:p], pivots[p+1:end], incoming(net.layers[l], j)
    B = try
        inv(centre.(A[:, F]))
    catch failure
        failure isa SingularException || rethrow()
        throw(Unproved("the inputs of the samples inside of a step are linearly dependent"))
    end
    return map(S) do k
        d = zeros(T, length(θ))
        d[into[k]] = one(T)
        d[into[F]] = -solution(A[:, F], A[:, k], B)
        d
    end
end
centre(x::Float64) = x
centre(x::Interval) = midpoint_radius(x)[1]
solution(::Matrix{Float64}, c::Vector{Float64}, B::Matrix{Float64}) = B * c
function solution(A::Matrix{I}, c::Vector{I}, B::Matrix{Float64}) where {I<:Interval{Float64}}
    product(v) = I[sum(I[B[i, m] * v[m] for m in eachindex(v)]) for i in axes(B, 1)]
    columns = [product(A[:, k]) for k in axes(A, 2)]
    z = maximum(sum(I[abs(columns[k][i] - (i == k)) for k in axes(A, 2)]).hi for i in axes(B, 1))
    z < 1 || throw(Unproved("the inputs of the samples inside of a step are not known well enough"))
    y = product(c)
    off = (Interval(z, z) / (1 - Interval(z, z)) * maximum(magnitude, y)).hi
    return y .+ Interval(-off, off)
end

"The inputs, with a one for a bias, of the samples inside of step `j` of layer `l`, a row each; equal ones count once."
function inputs_inside(net::Net{T}, θ::Vector{T}, l::Int, j::Int) where {T}
    layer, ws, seen, rows = net.layers[l], net.crew.workers[1].workspace, Set{Vector{Float64}}(), Vector{T}[]
    for block in net.blocks
        forward!(ws, net, θ, block, 0)
        A, H = layer_input(ws, block, l), similar(ws.A[l], size(ws.A[l], 1), layer.width)
        linear!(H, A, θ, layer, block.n)
        for r in 1:block.n
            centre(block.w[r]) > 0 || continue
            far = abs(H[r, j]) > END_OF_STEP
            far isa Undecided && throw(Unproved("a sample may be inside of a step or outside"))
            sample = centre.(block.X[r, :])
            (far || sample in seen) && continue
            push!(seen, sample)
            push!(rows, [A[r, 1:layer.fan_in]; ones(T, layer.bias)])
        end
    end
    return permutedims(reduce(hcat, rows))
end

"Whether a unit and its slope are zero on every sample for all parameters in the box."
function is_dead(net::Net, box::Vector{Interval{Float64}}, l::Int, j::Int)
    ws = net.crew.workers[1].workspace
    for block in net.blocks
        forward!(ws, net, box, block, 1)
        for r in 1:block.n
            iszero(magnitude(ws.A[l][r, j])) && iszero(magnitude(ws.D[l][r, j])) || return false
        end
    end
    return true
end
