# A critical point exists here, it is the only one in this box, and this is its index: proved in interval arithmetic.

"""
    Certificate

What [`certify`](@ref) proved, or why it could not:

- `certified`; `reason`, in words, if not
- `x`: the parameters, polished; a critical point x* of the loss has |x*ᵢ − xᵢ| ≤ `radius` for every i, and there is no
  other with |x*ᵢ − xᵢ| ≤ `uniqueness_radius` that agrees with `x` in the parameters `fixed`
- `index`: how many eigenvalues of the Hessian are negative there; `kind`: "minimum", "saddle" or "maximum"
- `loss_interval` and `eigenvalue_bounds` (of the Hessian in the parameters that are not fixed, ascending): lower and
  upper bounds
- `fixed`: parameters that were held where they are, because `gauges` (label, layer, units) of the loss move them
- `contraction`: the bound of ‖I − A ∇²L‖_∞ over the box of radius `radius`
- `precision`: bits of the numbers in which the gradient was evaluated
- `coordinates`: with a constraint the coordinates z of `x`, to which `uniqueness_radius`, `eigenvalue_bounds`, `fixed`
  and `contraction` belong; else empty
"""
struct Certificate
    certified::Bool
    reason::String
    x::Vector{Float64}
    radius::Float64
    uniqueness_radius::Float64
    index::Int
    kind::String
    loss_interval::Tuple{Float64,Float64}
    eigenvalue_bounds::Tuple{Vector{Float64},Vector{Float64}}
    fixed::Vector{Int}
    gauges::Vector{Tuple{String,Int,Vector{Int}}}
    contraction::Float64
    precision::Int
    coordinates::Vector{Float64}
end

function Base.show(io::IO, c::Certificate)
    c.certified || return print(io, "Certificate(not certified: ", c.reason, ")")
    low, high = c.loss_interval
    print(io, "Certificate(", c.kind, c.kind == "saddle" ? " of index $(c.index)" : "", " within ", c.radius,
          ", the only one within ", c.uniqueness_radius, "; loss in [", low, ", ", high, "])")
end

"""
    Proof(net)

A net in the number types of a proof: Float64, to find where to look; intervals of Float64, for the Hessian over a box;
intervals of BigFloat, for the gradient at its middle, made for each, since its workspace holds megabytes after it.
`free` parameters vary, the others stay what they are.
"""
mutable struct Proof{N<:AbstractNet{Float64},B<:AbstractNet{Interval{Float64}},F<:Function}
    coarse::N
    boxed::B
    make_fine::F
    monitor::Union{Nothing,Monitor}
    x::Vector{Float64}
    free::Vector{Int}
    symmetries::Vector{Invariance}                # for which others are held where they are
    loss::Interval{Float64}
    g::Vector{Interval{Float64}}                  # of all parameters, at x
    memory::TwoMatrices                           # of which V, M and A are parts
    V::Matrix{Float64}                            # eigenvectors of the Hessian in the free parameters, near x,
    d::Vector{Float64}                            # and its eigenvalues, ascending
    precision::Int
end

"""
What is known of the Hessian over a box of radius `R`: `M`, midpoints, and `radii`, sums over rows. With A ≈ M⁻¹, `Z`
and `Y` of [`certify`](@ref).
"""
struct BoxedHessian
    R::Float64
    M::Matrix{Float64}
    radii::Vector{Float64}
    Z::Float64
    Y::Float64
end

"Why there is no proof."
struct Unproved <: Exception
    reason::String
end

"""
    certify(net, θ; precision = 128, polish = true, within = nothing, maxtime = Inf, monitor = Monitor(),
            constraint = nothing) -> Certificate

Prove that the loss of `net` has a critical point near θ, that it is the only one in a box, and what its index is. The
loss is meant as the real function of real parameters, the data as the exact numbers that they are.

With x̄ near θ (after some of Newton's steps; θ itself without `polish`), A ≈ ∇²L(x̄)⁻¹, Y ≥ ‖A ∇L(x̄)‖_∞ and
Z(R) ≥ ‖I − A ∇²L(x)‖_∞ for all x with ‖x − x̄‖_∞ ≤ R, the map x ↦ x − A ∇L(x) takes this box to itself and contracts if
Y + Z R ≤ R and Z < 1: it has one fixed point there, which as A is regular is the one zero of ∇L (R. Krawczyk,
Computing 4, 1969; S. M. Rump, *Verification methods*, Acta Numerica 19, 2010). The gradient is evaluated in intervals
of BigFloat of `precision` bits, the Hessian in intervals of Float64, by the package's own formulas and with BLAS for
products of matrices, whose rounding is bounded beforehand. Every quantity rounds outwards. `within`: the uniqueness
radius that is to be proved; by default the largest that is found in a few attempts. With a [`Constraint`](@ref) all
this is said of the loss as a function of its coordinates, whose matrix B and vector c are taken as exact.
"""
function certify(net::AbstractNet, θ::AbstractVector; precision::Integer=128, polish::Bool=true,
                 within=nothing, maxtime::Real=Inf, monitor::Monitor=Monitor(), constraint=nothing)
    if constraint !== nothing
        C = Constraint{Float64}(constraint)
        return lifted(certify(ConstrainedNet(with_number_type(Float64, net), C), obeying(C, θ); precision=precision,
                              polish=polish, within=within, maxtime=maxtime, monitor=monitor), C)
    end
    length(θ) == n_params(net) ||
        throw(DimensionMismatch("θ has $(length(θ)) entries, the net has $(n_params(net)) parameters"))
    64 <= precision <= 10_000 || throw(ArgumentError("precision is $precision; 64 to 10000 bits are possible"))
    within === nothing || 0 < within < Inf ||
        throw(ArgumentError("within is $within; a positive number is needed"))
    x, bits = Vector{Float64}(θ), Int(precision)
    return setprecision(BigFloat, bits) do
        proof = start_proof(net, x, bits)
        proof isa String ? unproved(x, proof, bits) : prove(proof, polish, within, maxtime, monitor)
    end
end

"The proof to be, or why there is none: the loss of a teacher on infinite data, a constant, may have no bounds."
function start_proof(net::AbstractNet, x::Vector{Float64}, precision::Int)
    try
        short = in_blocks(SHORT, net)
        return Proof(with_number_type(Float64, short), with_number_type(Interval{Float64}, short),
                     () -> with_number_type(BigInterval, in_blocks(LANES, net)), nothing, x, collect(1:length(x)),
                     Invariance[], entire(Interval{Float64}), fill(entire(Interval{Float64}), length(x)),
                     TwoMatrices(length(x)), zeros(0, 0), Float64[], precision)
    catch failure
        failure isa Unproved || rethrow()
        return failure.reason
    end
end

# Sums over fewer samples have sharper bounds, and 64 intervals for each of a thousand parameters take a megabyte.
const SHORT = 64

"""
The same net with blocks of `n` samples: an interval of BigFloat takes some 200 bytes, so that the workspace for 256
samples and a thousand units has half a gigabyte, and 16 samples and a thousand parameters leave 19 MB behind.
"""
function in_blocks(n::Int, net::Net{T}) where {T}
    blocks = [Block{T}(length(rows), b.X[rows, :], b.Y[rows, :], b.w[rows])
              for b in net.blocks for rows in (r:min(r + n - 1, b.n) for r in 1:n:b.n)]
    return rebuilt(net; blocks=blocks, threads=1)
end

function prove(proof::Proof, polish::Bool, within, maxtime::Real, monitor::Monitor)
    nets = (proof.coarse, proof.boxed)
    proof.monitor = monitor
    start!(monitor, maxtime)
    try
        foreach(net -> watch!(net, monitor), nets)
        return GC.@preserve proof prove!(proof, polish, within === nothing ? NaN : Float64(within))
    catch failure
        failure isa Interrupted && return unproved(proof, "it was interrupted, or ran out of time")
        failure isa Unproved && return unproved(proof, failure.reason)
        failure isa LAPACKException && return unproved(proof, "LAPACK finds no eigenvectors of the Hessian")
        # A user's function that knows no intervals, or asks on which side of a kink it is.
        users = any(f -> f isa Union{Custom,CustomLoss}, functions(proof.coarse))
        (failure isa InterruptException || !users) && rethrow()
        return unproved(proof, "a user's function cannot be evaluated on intervals here: " *
                               first(split(sprint(showerror, failure), '\n')))
    finally
        foreach(net -> watch!(net, nothing), nets)
        release!(proof.memory)
    end
end

"Activations and loss, those that limits are made of among them."
functions(net) = Any[loss_in(net); Any[c.activation for l in layers_in(net) for c in [l.columns; l.chains]]]
loss_in(net::Net) = net.objective
loss_in(net::InfiniteNet) = net.student.objective
loss_in(r::ConstrainedNet) = loss_in(r.net)

unproved(x::Vector{Float64}, reason::String, precision::Int, fixed=Int[], gauges=Tuple{String,Int,Vector{Int}}[]) =
    Certificate(false, reason, x, NaN, NaN, -1, "unknown", (-Inf, Inf), (Float64[], Float64[]), fixed, gauges, NaN,
                precision, Float64[])
unproved(proof::Proof, reason::String) = unproved(proof.x, reason, proof.precision, fixed(proof), gauges(proof))

# By itself Julia collects garbage when 45 MB of it may be there. A quick collection takes a few tenths of a
# millisecond.
const GARBAGE = 4 * 2^20
const COLLECTED_AT = Ref{Int64}(0)           # bytes that had been allocated then

"Collect what is new: what is left behind must not take more memory than the matrices of a proof."
function collect_garbage!()
    GC.gc(false)
    COLLECTED_AT[] = Base.gc_bytes()
    return nothing
end

# Before each block of samples.
function beat(worker::Worker, net::Net{<:Interval})
    # What is kept may be the count of the process that wrote the system image.
    Base.gc_bytes() - GARBAGE <= COLLECTED_AT[] <= Base.gc_bytes() || collect_garbage!()
    return invoke(beat, Tuple{Worker,Any}, worker, net)
end

"""
Where the matrices of a proof take more memory than what a gradient leaves behind, this is given back to the system, by
full collections of some 0.1 s each: the first one empties pages, the second one frees those that are empty.
"""
function give_back!(memory::TwoMatrices)
    sizeof(memory.numbers) > 2 * GARBAGE && (GC.gc(); GC.gc())
    return nothing
end

function prove!(proof::Proof, polish::Bool, within::Float64)
    all(isfinite, proof.x) || throw(Unproved("the parameters contain NaN or Inf"))
    # Intervals in the dual numbers of another package are not tested.
    any(f -> f isa Union{Custom,CustomLoss} && !(f.differentiation isa Jets), functions(proof.coarse)) &&
        throw(Unproved("a user's function is differentiated by ForwardDiff: make the net without it"))
    polish ? approach!(proof) : bounded_gradient!(proof)
    x = proof.x
    H, lower, upper = settle!(proof, starting_radius(x))
    if !(H.Z < 1) && 0 < 16 * H.Y < H.R      # an ill-conditioned Hessian, which varies too much over the usual box
        H, lower, upper = settle!(proof, 2.0^(exponent(H.Y) + 3))     # a power of two: who verifies finds the same
    end
    H.Z < 1 || throw(Unproved(too_flat(proof, H.Z)))
    if !(H.Y < (1 - H.Z) * H.R / 2)          # the point is known less well than usual: a larger box
        H, lower, upper = settle!(proof, 4 * H.Y)
        H.Z < 1 || throw(Unproved("the Newton step is $(short(H.Y)) long, and over a box of that size the Hessian " *
                                  "varies too much: polish the point, or minimize first"))
    end
    radius = radius_of(H)
    radius === nothing && throw(Unproved("the Newton step is $(short(H.Y)) long, and too long for a contraction of " *
                                         "$(short(H.Z)): polish the point first"))
    check_gauges(proof, box_around(proof, H.R))
    free = proof.free
    index = count(<(0), upper)
    index + count(>(0), lower) == length(free) || throw(Unproved(
        "the sign of an eigenvalue is not known: the smallest in absolute value lies in " * smallest(lower, upper)))
    loss = loss_at_critical_point(proof, H, radius)
    settled = H.Z
    unique = isnan(within) ? widest!(proof, H.R) : proved!(proof, within)
    F = length(free)
    kind = index == 0 ? "minimum" : index == F ? "maximum" : "saddle"
    if polish                 # a little more than was found, so that `x` as it is now has a proof with another BLAS too
        radius = above(radius * (1 + 2.0^-10))
        slack = 2.0^-10 .* (upper .- lower)
        lower, upper, loss = lower .- slack, upper .+ slack, Interval(below(loss.lo), above(loss.hi))
    end
    return Certificate(true, "", x, radius, unique, index, kind, (loss.lo, loss.hi), (lower, upper),
                       fixed(proof), gauges(proof), settled, proof.precision, Float64[])
end

"""
A certificate of coordinates as one of the parameters θ = B z + c, rounded to Float64: each is off by that, and by as
much as the coordinates within the radius can move it.
"""
function lifted(p::Certificate, C::Constraint{Float64})
    θ, off = embed(C, p.x), NaN
    p.certified && setprecision(BigFloat, p.precision) do
        fine = Constraint{BigInterval}(C)
        moved = image(fine, fill(BigInterval(Interval(-p.radius, p.radius)), length(p.x)))
        off = maximum(magnitude.(Interval{Float64}.(embed(fine, BigInterval.(p.x)) .- BigInterval.(θ) .+ moved)))
    end
    return Certificate(p.certified, p.reason, θ, off, p.uniqueness_radius, p.index, p.kind, p.loss_interval,
                       p.eigenvalue_bounds, p.fixed, p.gauges, p.contraction, p.precision, p.x)
end

"""
    settle!(proof, R) -> H, lower, upper

The Hessian over the box of radius R, and bounds of its eigenvalues there. Parameters are held where symmetries explain
that it is singular.
"""
function settle!(proof::Proof, R::Float64)
    M, radii = hessian_in_box!(proof, R)
    proof.V = copyto!(sheet(proof.memory, 2, size(M, 1)), M)
    eigenpairs!(proof) || return settle!(proof, R)
    lower, upper = eigenvalue_bounds(M, radii, proof.V, proof.d)
    Z, Y = krawczyk!(proof, M, radii)
    return BoxedHessian(R, M, radii, Z, Y), lower, upper
end

"""
Enclose ∇²L(x̄ + y) for all ‖y‖_∞ ≤ R that vanish outside of the free parameters: midpoints, as the first matrix, and
sums of radii over rows.
"""
function hessian_in_box!(proof::Proof, R::Float64)
    hessian!(interval_matrix(proof.memory), proof.boxed, box_around(proof, R))
    M, radii = midpoints!(proof.memory, proof.free)
    all_finite(M) && all(isfinite, radii) ||
        throw(Unproved("a unit with a kink changes sides in the box around the point, or a number overflows"))
    return M, radii
end

"Krawczyk's numbers Z and Y, with A ≈ M⁻¹ as the second matrix, in the place of the eigenvectors."
function krawczyk!(proof::Proof, M::Matrix{Float64}, radii::Vector{Float64})
    proof.V = zeros(0, 0)
    collect_garbage!()
    A, pivots, info = LAPACK.getrf!(copyto!(sheet(proof.memory, 2, size(M, 1)), M))
    info == 0 || throw(Unproved("the Hessian is singular in Float64"))
    LAPACK.getri!(A, pivots)
    return contraction(A, M, radii), at_most(maximum(magnitude, bounded_step(A, proof)), 1)
end

"Krawczyk's numbers over a box, whatever its radius."
function boxed_hessian!(proof::Proof, R::Float64)
    M, radii = hessian_in_box!(proof, R)
    return BoxedHessian(R, M, radii, krawczyk!(proof, M, radii)...)
end

short(x::Float64) = string(round(x; sigdigits=2))
too_flat(proof::Proof, Z::Float64) = isfinite(Z) ?
    "the Hessian, whose condition number is $(short(maximum(abs, proof.d) / minimum(abs, proof.d))), is too close to " *
    "singular " *
    "for its rounding errors (‖I − A∇²L‖ ≤ $(short(Z)); below 1 is needed): freeze a parameter, add a penalty, or " *
    "rescale the inputs" : "the Hessian cannot be bounded here"
function smallest(lower, upper)
    i = argmin([max(abs(l), abs(u)) for (l, u) in zip(lower, upper)])
    return "[$(short(lower[i])), $(short(upper[i]))]"
end

# Where a point in Float64 is as near to the critical point as it can be, within a factor of a hundred.
starting_radius(x) = 2.0^-46 * (1 + maximum(abs, x))
"The radius of a box in which the critical point is the only one: as large as a few attempts from 1e-6 on find."
function widest!(proof::Proof, known::Float64)
    R = 1e-6 * (1 + maximum(abs, proof.x))
    for attempt in 1:6
        H = try
            boxed_hessian!(proof, R)
        catch failure                         # a user's function that has a kink in this box, and none in the last
            failure isa Union{Unproved,TypeError} || rethrow()
            nothing
        end
        # What Z is beyond rounding grows in proportion to R, or faster.
        if H !== nothing && H.Z < 0.9 && R > known && radius_of(H) !== nothing
            known = R
            H.Z > 0.4 && break
            R *= H.Z > 0.01 ? 0.8 / H.Z : 80
        else
            next = H !== nothing && isfinite(H.Z) ? R * max(0.01, 0.6 / H.Z) : R / 50
            next > 1.5 * known || break
            R = next
        end
    end
    return known
end

function proved!(proof::Proof, R::Float64)
    H = boxed_hessian!(proof, R)
    radius_of(H) === nothing &&
        throw(Unproved("the Hessian varies too much within $(short(R)) (‖I − A∇²L‖ ≤ $(short(H.Z)); below 1 is " *
                       "needed)"))
    return R
end

"""
    radius_of(Y, Z, R)

The radius r = Y/(1 − Z) of a box in which the critical point lies, if r < R, where Z bounds the contraction: then
Y + Z r ≤ r.
"""
function radius_of(Y::Float64, Z::Float64, R::Float64)
    0 <= Z < 1 && 0 <= Y < Inf || return nothing
    r = (Interval(Y, Y) / (1 - Interval(Z, Z))).hi
    return r < R ? r : nothing
end
radius_of(H::BoxedHessian) = radius_of(H.Y, H.Z, H.R)

"""
Newton's method from `x`: in Float64 first, which is quick and for which a Hessian near by will do, then with the
gradient in BigFloat and the Hessian at each point, until `x` is the critical point but for its rounding. The gradient
there is bounded.
"""
function approach!(proof::Proof)
    curvature!(proof)
    x = proof.x
    scale, stale = 1 + maximum(abs, x), false            # whether x has moved since
    for attempt in 1:8
        step = newton_step(proof, gradient(proof.coarse, x))
        size = maximum(abs, step)
        size <= 1e-2 * scale || throw(Unproved("Newton's step is $(short(size)) long: the point is not near a " *
                                               "critical point, minimize first"))
        x[proof.free] .+= step
        stale = size <= 1e-6 * scale
        stale || curvature!(proof)
        size <= 1e-12 * scale && break
    end
    for attempt in 1:3
        stale && forget_matrices!(proof)
        bounded_gradient!(proof)
        stale && curvature!(proof)
        step = newton_step(proof, Float64[midpoint_radius(g)[1] for g in proof.g])
        y = x[proof.free] .+ step
        all(isfinite, y) || throw(Unproved("Newton's method does not converge from here"))
        y == x[proof.free] && return nothing
        x[proof.free] = y
        stale = true
        maximum(abs, step) <= 1e-8 * scale && break             # its square is below rounding
    end
    forget_matrices!(proof)
    bounded_gradient!(proof)
    return nothing
end

"What numbers of many bits leave to the garbage collector takes the place of the matrices, where these are not needed."
function forget_matrices!(proof::Proof)
    proof.V = zeros(0, 0)
    release!(proof.memory)
end

"Eigenvectors and eigenvalues of the Hessian at `x`; parameters are held where symmetries explain that it is singular."
function curvature!(proof::Proof)
    P = length(proof.x)
    lend_matrix!(proof.coarse, sheet(proof.memory, 2, P))
    proof.V = hessian!(sheet(proof.memory, 1, P), proof.coarse, proof.x)
    free_buffers!(proof.coarse)
    all_finite(proof.V) || throw(Unproved("the Hessian is not finite at this point"))
    length(proof.free) == P ||
        (proof.V = copyto!(sheet(proof.memory, 2, length(proof.free)), view(proof.V, proof.free, proof.free)))
    eigenpairs!(proof) || curvature!(proof)
    return nothing
end

"""
    eigenpairs!(proof::Proof) -> Bool

Overwrite a Hessian in `proof.V` with its eigenvectors; `false` if it is singular by symmetries, whose parameters are
held from then on.
"""
function eigenpairs!(proof::Proof)
    proof.d, V = eigenpairs!(proof.V; sparing=true)
    null = findall(λ -> abs(λ) <= 100 * eps() * length(proof.d) * maximum(abs, proof.d), proof.d)
    isempty(null) && return true
    N = zeros(length(proof.x), length(null))
    N[proof.free, :] = V[:, null]
    fix_gauges!(proof, N) && return false
    throw(Unproved(null_directions(proof, N)))
end

function null_directions(proof::Proof, N::Matrix{Float64})
    k = size(N, 2)
    found, unexplained = explain(proof.coarse, proof.x, N)
    reasons =
        String["$(e.label) ($(join(e.units .- 1, ", ")) of $(e.layer == 0 ? "the inputs" : "layer $(e.layer - 1)"))"
                      for (e, _) in found]
    unexplained > 0 && push!(reasons, "no known reason ($unexplained)")
    return "the Hessian has $k null direction$(k == 1 ? "" : "s"), so that the point is not isolated: " *
           join(reasons, "; ")
end

"−H⁻¹g of the free parameters from the eigenpairs of H"
newton_step(proof::Proof, g) = -(proof.V * ((proof.V' * g[proof.free]) ./ proof.d))

function bounded_gradient!(proof::Proof)
    bounded_gradient_in_bits!(proof)
    give_back!(proof.memory)
    all(isfinite, proof.g) || throw(Unproved(undefined(proof)))
    return nothing
end
# A call of its own: what is kept for it is garbage when it has returned, not before.
@noinline function bounded_gradient_in_bits!(proof::Proof)
    fine, g = proof.make_fine(), Vector{BigInterval}(undef, length(proof.x))
    proof.monitor === nothing || watch!(fine, proof.monitor)
    proof.loss = Interval{Float64}(value_and_gradient!(g, fine, BigInterval.(proof.x)))
    for i in eachindex(g)
        proof.g[i] = Interval{Float64}(g[i])
    end
    return nothing
end

lend_matrix!(net::AbstractNet, H) = nothing
free_buffers!(net::InfiniteNet) = nothing
free_buffers!(r::ConstrainedNet) = free_buffers!(r.net)

in_blocks(n::Int, net::InfiniteNet) = net
in_blocks(n::Int, r::ConstrainedNet) = ConstrainedNet(in_blocks(n, r.net), r.constraint)

function box_around(proof::Proof, R::Float64)
    box = Interval{Float64}.(proof.x)
    for i in proof.free
        box[i] += Interval(-R, R)
    end
    return box
end

undefined(proof::Proof) = "the gradient cannot be bounded: a unit with a kink is at it, or a number overflows"

"Enclosures of the components of A ∇L(x̄)."
function bounded_step(A::Matrix{Float64}, proof::Proof)
    y = zeros(Interval{Float64}, length(proof.free))
    for (j, k) in enumerate(proof.free), i in eachindex(y)
        y[i] += Interval(A[i, j], A[i, j]) * proof.g[k]
    end
    return y
end

"L(x*) = L(x̄) + ∇L(x̄)·h + hᵀ∇²L(ξ)h/2 with |hᵢ| ≤ radius."
function loss_at_critical_point(proof::Proof, H::BoxedHessian, radius::Float64)
    slope = sum(Float64[magnitude(proof.g[k]) for k in proof.free])
    bend = sum(H.radii) + sum(abs, H.M)
    n = length(proof.free)
    r = Interval(0.0, radius)
    change = r * Interval(0.0, at_most(slope, n)) + r * r * Interval(0.0, at_most(bend, 2n * (n + 1))) / 2
    return proof.loss + Interval(-change.hi, change.hi)
end
